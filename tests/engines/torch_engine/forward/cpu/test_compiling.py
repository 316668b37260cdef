"""Kernels are compiled once, and anew when any of their sources changes."""

import logging
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
        with caplog.at_level(logging.INFO, "parrot_backend"):
            assert compiling.compiled()(add)(1) == 2
    folders = list((tmp_path / "kernels").iterdir())
    assert len(folders) == 2
    assert all(list(folder.rglob("*.nbc")) for folder in folders)
    assert caplog.text.count("compiled at their first use") == 2


def test_where_nothing_can_be_kept_it_is_compiled_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "file"))
    assert compiling.compiled()(add)(1) == 2
    assert "can't be kept" in caplog.text
