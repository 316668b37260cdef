"""`Found`: a model that lies on this disk, whoever keeps it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Found:
    """A model by the `name` that `--model` takes; `path` is a folder or a GGUF file of `size` bytes.

    One that is not `whole` was not fetched to its end.
    """

    name: str
    path: Path
    size: int
    whole: bool = True
