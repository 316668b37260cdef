"""Which of several GGUF files is meant: models come in many quantizations, each a file of its own.

As llama.cpp and Ollama have it: a file is named by its quantization, as its own name ends in it, and
without one Q4_K_M is taken. Beside models lie projectors for images (`mmproj`), which are none.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from parrot_backend.wire.errors import InvalidRequestError, NotFoundError

DEFAULT_QUANT = "Q4_K_M"

_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_LABEL = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4\w*))$", re.IGNORECASE
)


def models_among(files: Sequence[str]) -> list[str]:
    """The GGUF files that are models; of one in parts the first part stands for all."""
    return sorted(file for file in files if _is_model(PurePosixPath(file)))


def _is_model(file: PurePosixPath) -> bool:
    part = _PART.search(file.stem)
    is_first = part is None or int(part[1]) == 1
    return file.suffix == ".gguf" and "mmproj" not in file.name.lower() and is_first


def parts_of(file: str) -> int:
    """How many files a model is in, of which this is one."""
    part = _PART.search(PurePosixPath(file).stem)
    return int(part[2]) if part else 1


def label(file: str) -> str:
    """What a file is asked for by: its quantization, or its name where it tells none."""
    stem = _PART.sub("", PurePosixPath(file).stem)
    found = _LABEL.search(stem)
    return found[1] if found else PurePosixPath(file).name


def choose(files: Sequence[str], quant: str | None, where: str) -> str:
    """The file that is meant.

    Args:
        files: of a repository or folder, with the paths inside it.
        quant: a quantization or a file's name; without it Q4_K_M, or the only one.
        where: what errors call the place.

    Raises:
        NotFoundError: there is no such file; says which there are.
        InvalidRequestError: there are several, and none was named.
    """
    models = models_among(files)
    told = ", ".join(dict.fromkeys(map(label, models)))
    if quant is None and len(models) == 1:
        return models[0]
    matching = [file for file in models if _is(file, quant or DEFAULT_QUANT)]
    if matching:
        return min(matching, key=len)  # `a-Q4_K_M`, and not `a-UD-Q4_K_M`
    if not models:
        raise NotFoundError(f"{where} holds no GGUF file", code="model_not_found")
    if quant is None:
        raise InvalidRequestError(
            f"{where} holds {len(models)} GGUF files, name one behind a colon: {told}",
            code="not_a_model",
        )
    raise NotFoundError(f"{where} has no '{quant}'; there is: {told}", code="model_not_found")


def _is(file: str, quant: str) -> bool:
    path, wanted = PurePosixPath(file), quant.lower()
    stem = _PART.sub("", path.stem).lower()
    ends_in_it = re.search(rf"(?:^|[-.]){re.escape(wanted)}$", stem) is not None
    return ends_in_it or wanted in (label(file).lower(), path.name.lower())
