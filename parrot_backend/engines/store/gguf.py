"""GGUF files: what is in one, and its conversion to a Hugging Face folder in float32."""

import contextlib
import errno
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_backend.engines.store.gguf_header import DamagedError, UnknownTypeError, whole
from parrot_backend.wire.errors import InvalidRequestError

# By llama.cpp's names for pre-tokenizers: those that make every digit a token of its own, before the
# byte-level pattern. transformers does not know them.
_SPLIT_DIGITS = frozenset(
    {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
)


class GGUFError(InvalidRequestError):
    """A GGUF file can't be read, or holds a model that is not supported."""

    default_code = "not_a_model"


@dataclass(frozen=True, slots=True)
class _Header:
    architecture: str
    pre_tokenizer: str | None


def convert(gguf: Path, folder: Path) -> None:
    """Write tokenizer, chat template, float32 safetensors and generation settings to `folder`.

    Quantized weights are dequantized.

    Raises:
        GGUFError: the file is broken or only a part of a model, or transformers does not know the
            architecture.
    """
    header = _read_header(gguf)
    try:
        with _silence():
            _convert_tokenizer(gguf, folder, header)
            _convert_weights(gguf, folder)
    except OSError:
        raise
    except Exception as error:
        if (full := os.strerror(errno.ENOSPC)) in str(error):  # safetensors has errors of its own
            raise OSError(errno.ENOSPC, full) from error
        raise GGUFError(
            f"'{gguf}' (architecture '{header.architecture}') can't be loaded: {_line(error)}"
        ) from error


def _read_header(gguf: Path) -> _Header:
    try:
        told = whole(gguf).fields
    except DamagedError as error:
        raise GGUFError(
            f"'{gguf}' is not a whole GGUF file: {error}. It was cut off or is damaged: fetch it again"
        ) from error
    except UnknownTypeError as error:
        raise GGUFError(
            f"'{gguf}' can't be read: {error}, which is not known here: choose another quantization"
        ) from error
    architecture, parts = told.get("general.architecture"), told.get("split.count", 1)
    if not isinstance(architecture, str):
        raise GGUFError(f"'{gguf}' names no architecture (general.architecture)")
    if parts not in (0, 1):
        raise GGUFError(
            f"'{gguf}' (architecture '{architecture}') is one of {parts} parts: "
            "join them with llama.cpp's gguf-split --merge"
        )
    if "tokenizer.ggml.model" not in told:
        raise GGUFError(
            f"'{gguf}' (architecture '{architecture}') has no tokenizer (tokenizer.ggml.model): fetch "
            "a file that has one, as llama.cpp's convert_hf_to_gguf.py makes it"
        )
    return _Header(architecture, told.get("tokenizer.ggml.pre"))


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _convert_tokenizer(gguf: Path, folder: Path, header: _Header) -> None:
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if header.pre_tokenizer in _SPLIT_DIGITS:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    tokenizer.save_pretrained(folder)


def _convert_weights(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    _forget_quantization(model)
    model.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def _forget_quantization(model: Any) -> None:
    """The weights are plain float32 now; transformers refuses to save what it thinks is GGUF."""
    model.is_quantized = False
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
