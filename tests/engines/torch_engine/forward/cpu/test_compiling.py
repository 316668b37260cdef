"""Kernels are compiled once, and anew when any of their sources changes."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parrot_backend.engines.torch_engine.forward.cpu import compiling


@pytest.fixture(autouse=True)
def _looked_for_anew() -> Iterator[None]:
    compiling._folder.cache_clear()
    yield
    compiling._folder.cache_clear()


def add(x: int) -> int:
    return x + 1


def test_what_was_compiled_is_kept_beside_that_of_other_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    for source in (compiling.__file__, __file__):
        monkeypatch.setattr(compiling, "__file__", source)
        compiling._folder.cache_clear()
        with caplog.at_level(logging.INFO, "parrot_backend"), compiling.compiling("sums"):
            assert compiling.compiled()(add)(1) == 2
    folders = list((tmp_path / "kernels").iterdir())
    assert len(folders) == 2
    assert all(list(folder.rglob("*.nbc")) for folder in folders)
    assert caplog.text.count("compiling the kernels") == 2
    with compiling.compiling("sums"):
        pass
    assert caplog.text.count("compiling the kernels") == 2


def test_what_no_start_has_used_for_long_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    kernels = tmp_path / "kernels"
    for name, age in (("old", 31), ("used", 29)):
        (kernels / name).mkdir(parents=True)
        then = time.time() - age * 86400
        os.utime(kernels / name, (then, then))
    ours = compiling._folder()
    assert ours is not None
    assert {entry.name for entry in kernels.iterdir()} == {"used", ours.name}


def test_where_nothing_can_be_kept_it_is_compiled_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "file"))
    assert compiling.compiled()(add)(1) == 2
    assert "can't be kept" in caplog.text
