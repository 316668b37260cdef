"""The head of a GGUF file: what it says of the model, and whether the file is as long as it says.

A file may be cut off, damaged or made up: no number in it is believed before there are so many bytes.
Imports nothing heavy.
"""

import functools
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"

# By the numbers of the format: 8, 16 and 32 bits without sign and with, float, bool, 64 bits, double.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_DIMENSIONS = 8
_LONGEST_TEXT = 1 << 24
# What tells of a model stands before its tokenizer, which is long.
_BEGINNING = 1 << 20


class DamagedError(ValueError):
    """The file is not what its head says."""


class UnknownTypeError(ValueError):
    """A tensor is quantized in a way that is not known here."""


@dataclass(frozen=True, slots=True)
class Header:
    """The scalars and texts of a file by their keys, and how long its arrays are."""

    fields: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)


def is_gguf(path: Path) -> bool:
    """Whether it is one by its name, or else by how it begins: Ollama's have no such name."""
    if not path.is_file():
        return False
    if path.suffix == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def beginning(path: Path) -> dict[str, Any]:
    """The scalars and texts before the tokenizer, as far as the file tells them."""
    header = Header()
    try:
        with path.open("rb") as file:
            head = _Head(file.read(_BEGINNING))
        _, fields = head.counts()
        for _ in range(fields):
            if (key := head.text()).startswith("tokenizer."):
                break
            head.value(key, header)
    except (OSError, DamagedError):
        pass
    return header.fields


def whole(path: Path) -> Header:
    """All of the head of a file that holds every tensor that it names.

    Raises:
        DamagedError: it does not hold them, or is no GGUF file.
        UnknownTypeError: nobody here can tell how long one of them is.
        OSError: it can't be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise DamagedError("it is empty")
    header = Header()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        head = _Head(content)
        tensors, fields = head.counts()
        for _ in range(fields):
            head.value(head.text(), header)
        end = max((head.end_of_tensor() for _ in range(tensors)), default=0)
    alignment = header.fields.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise DamagedError(f"its tensors are aligned by {alignment}")
    wanted = -(-head.offset // alignment) * alignment + end
    if tensors and size < wanted:
        raise DamagedError(f"it has {size:,} of {wanted:,} bytes")
    return header


class _Head:
    """Reads from the start of a file on; every method goes on where the last one ended."""

    def __init__(self, content: "bytes | mmap.mmap") -> None:
        self._content = content
        self.offset = 0

    def counts(self) -> tuple[int, int]:
        """How many tensors and fields there are."""
        if bytes(self._content[: len(MAGIC)]) != MAGIC:
            raise DamagedError("it does not begin as one")
        self.offset = len(MAGIC)
        if (version := self._number("I")) not in _VERSIONS:
            raise DamagedError(f"version {version} of the format is not known here")
        return self._number("Q"), self._number("Q")

    def text(self) -> str:
        length = self._number("Q")
        if length > _LONGEST_TEXT:
            raise DamagedError(f"a text of {length:,} bytes in its head")
        begin = self.offset
        self._skip(length)
        return self._content[begin : self.offset].decode(errors="replace")

    def value(self, key: str, header: Header) -> None:
        """The value of a field, put into `header`."""
        kind = self._number("I")
        if kind == _TEXT:
            header.fields[key] = self.text()
        elif kind == _ARRAY:
            header.lengths[key] = self._array()
        else:
            header.fields[key] = self._number(_form(kind))

    def end_of_tensor(self) -> int:
        """Where a tensor ends, from where tensors begin, as its entry says."""
        name, dimensions = self.text(), self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise DamagedError(f"tensor '{name:.100}' has {dimensions} dimensions")
        numbers = 1
        for _ in range(dimensions):
            numbers *= self._number("Q")
        kind, offset = self._number("I"), self._number("Q")
        if (sizes := _block_sizes().get(kind)) is None:
            raise UnknownTypeError(f"tensor '{name:.100}' is of type {kind}")
        in_block, size = sizes
        return int(offset + numbers // in_block * size)

    def _array(self) -> int:
        kind, length = self._number("I"), int(self._number("Q"))
        if kind == _TEXT:
            for _ in range(length):
                self._skip(self._number("Q"))
        else:
            self._skip(length * struct.calcsize(_form(kind)))
        return length

    def _number(self, form: str) -> Any:
        try:
            (number,) = struct.unpack_from(f"<{form}", self._content, self.offset)
        except struct.error:
            raise DamagedError("it ends within its head") from None
        self.offset += struct.calcsize(form)
        return number

    def _skip(self, length: int) -> None:
        if length > len(self._content) - self.offset:
            raise DamagedError("it ends within its head")
        self.offset += length


@functools.cache
def _block_sizes() -> dict[int, tuple[int, int]]:
    """How many numbers are in a block of a type of tensors, and in how many bytes."""
    from gguf import GGML_QUANT_SIZES

    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise DamagedError(f"a field of type {kind} in its head")
    return _SCALARS[kind]
