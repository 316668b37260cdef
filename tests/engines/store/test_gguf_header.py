"""The heads of GGUF files: read without loading anything, and believed in nothing."""

import contextlib
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parrot_backend.engines.store.gguf_header import (
    DamagedError,
    UnknownTypeError,
    beginning,
    is_gguf,
    whole,
)
from tests.engines.store.places import small_gguf

HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return small_gguf(tmp_path / "small.gguf")


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def head(tensors: int, fields: int, *parts: bytes) -> bytes:
    return HEAD + struct.pack("<QQ", tensors, fields) + b"".join(parts)


def refusal(tmp_path: Path, content: bytes) -> str:
    """What is wrong with a file of this content; also whoever reads its beginning gets an answer."""
    file = tmp_path / "made_up.gguf"
    file.write_bytes(content)
    assert isinstance(beginning(file), dict)
    with pytest.raises((DamagedError, UnknownTypeError)) as caught:
        whole(file)
    return str(caught.value)


def test_what_a_file_tells_of_its_model_is_read(gguf: Path) -> None:
    told = beginning(gguf)
    assert told["general.architecture"] == "llama"
    assert told["llama.embedding_length"] == 64
    assert "tokenizer.ggml.model" not in told
    all_of_it = whole(gguf)
    assert all_of_it.fields["tokenizer.ggml.model"] == "gpt2"
    assert all_of_it.lengths["tokenizer.ggml.tokens"] == 2


def test_a_file_is_one_by_its_name_or_by_how_it_begins(gguf: Path, tmp_path: Path) -> None:
    assert is_gguf(gguf)
    assert is_gguf(gguf.rename(tmp_path / "sha256-abc"))
    (tmp_path / "other").write_bytes(b"GGU")
    (tmp_path / "cut.gguf").touch()
    assert not is_gguf(tmp_path / "other")
    assert is_gguf(tmp_path / "cut.gguf"), "so that it is named as one that is cut off"
    assert not is_gguf(tmp_path / "nothing.gguf")
    assert not is_gguf(tmp_path)


def test_every_cut_is_seen(gguf: Path, tmp_path: Path) -> None:
    content = gguf.read_bytes()
    for length in range(len(content)):
        assert refusal(tmp_path, content[:length])
    assert f"it has {len(content) - 1:,} of {len(content):,} bytes" in refusal(
        tmp_path, content[:-1]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"PK\3\4" + bytes(64), "does not begin as one"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "version 50331648"),
        (head(0, 1 << 60), "ends within its head"),
        (head(1 << 60, 0), "ends within its head"),
        (head(0, 1, text(b"k"), struct.pack("<IQ", 8, 1 << 62)), "a text of"),
        (head(0, 1, struct.pack("<Q", 1 << 62)), "a text of"),
        (head(0, 1, text(b"k"), struct.pack("<IIQ", 9, 0, 1 << 62)), "ends within its head"),
        (head(0, 1, text(b"k"), struct.pack("<IIQ", 9, 8, 1 << 62)), "ends within its head"),
        (head(0, 1, text(b"k"), struct.pack("<IIQ", 9, 9, 2)), "a field of type 9"),
        (head(0, 1, text(b"k"), struct.pack("<I", 77)), "a field of type 77"),
        (head(1, 0, text(b"w"), struct.pack("<I", 1 << 30)), "dimensions"),
        (head(1, 0, text(b"w"), struct.pack("<IQIQ", 1, 1 << 63, 0, 0)), "bytes"),
        (head(1, 0, text(b"w"), struct.pack("<IQIQ", 1, 32, 4711, 0)), "'w' is of type 4711"),
        (
            head(1, 1, text(b"general.alignment"), struct.pack("<II", 4, 0))
            + text(b"w")
            + struct.pack("<IQIQ", 1, 1, 0, 0),
            "aligned by 0",
        ),
    ],
)
def test_what_can_not_be_is_refused_at_once(tmp_path: Path, content: bytes, reason: str) -> None:
    began = time.monotonic()
    assert reason in refusal(tmp_path, content)
    assert time.monotonic() - began < 1


def test_a_damaged_file_is_read_or_refused(gguf: Path, tmp_path: Path) -> None:
    content, chance = gguf.read_bytes(), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 127, 128, 255))
        file = tmp_path / "damaged.gguf"
        file.write_bytes(damaged)
        beginning(file)
        with contextlib.suppress(DamagedError, UnknownTypeError):
            whole(file)


def test_the_beginning_is_read_without_anything_heavy(gguf: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from parrot_backend.engines.store.gguf_header import beginning; "
        f"print(beginning(Path({str(gguf)!r}))['general.architecture'], "
        "[m for m in ('torch', 'transformers', 'numpy', 'gguf') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "llama []"
