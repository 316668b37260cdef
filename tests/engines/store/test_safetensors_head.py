"""The heads of safetensors files."""

from pathlib import Path

import pytest

from parrot_backend.engines.store.safetensors_head import cut_off, metadata


@pytest.fixture
def file(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    weights = {"a": torch.zeros(8, 8), "b": torch.ones(3)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"source": "here"})
    return tmp_path / "model.safetensors"


def test_a_whole_file(file: Path) -> None:
    assert metadata(file)["source"] == "here"
    assert cut_off(file.parent) is None


def test_every_cut_is_seen(file: Path) -> None:
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        assert file.name in (cut_off(file.parent) or "")
    file.write_bytes(content[:-1])
    assert cut_off(file.parent) == (
        f"model.safetensors has {len(content) - 1:,} of {len(content):,} bytes"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        (4).to_bytes(8, "little") + b"[[[[",
        (2).to_bytes(8, "little") + b"[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        (10).to_bytes(8, "little") + b'{"a": {} }',
        (10).to_bytes(8, "little") + b'{"a": 777}',
    ],
    ids=range(6),
)
def test_what_begins_otherwise_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    assert cut_off(tmp_path) == "a.safetensors does not begin as a safetensors file"
    assert metadata(tmp_path / "a.safetensors") == {}
