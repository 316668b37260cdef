"""The head of a safetensors file: its metadata, and whether the file is as long as it says.

Imports nothing heavy.
"""

import json
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8
_LONGEST = 1 << 27


def metadata(file: Path) -> dict[str, Any]:
    """What whoever wrote it says of it; empty where that is nothing, or it is no such file."""
    try:
        told = _head(file)[0].get("__metadata__")
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def cut_off(folder: Path) -> str | None:
    """Which of a folder's files is not whole, and how much of it there is."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            head, begin = _head(file)
            ends = [int(told["data_offsets"][1]) for name, told in head.items() if name[:2] != "__"]
        except (ValueError, LookupError, TypeError):
            return f"{file.name} does not begin as a safetensors file"
        size, whole = file.stat().st_size, begin + max(ends, default=0)
        if size < whole:
            return f"{file.name} has {size:,} of {whole:,} bytes"
    return None


def _head(file: Path) -> tuple[dict[str, Any], int]:
    """The JSON that a file begins with, behind its length, and where that ends.

    Raises:
        ValueError: it begins otherwise.
        OSError: it can't be read.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        if length > _LONGEST:
            raise ValueError("its head is too long")
        try:
            head = json.loads(opened.read(length))
        except RecursionError:
            raise ValueError("its head is no JSON of this kind") from None
    if not isinstance(head, dict):
        raise ValueError("its head is no JSON object")
    return head, _LENGTH_BYTES + length
