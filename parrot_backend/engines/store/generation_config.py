"""A model's `generation_config.json`: how it generates where a request does not say. As vLLM has it.

Of the file the fields of `_FIELDS` count, of which vLLM knows all but `frequency_penalty`; `do_sample`
does not, for whoever wants the best token each time asks for temperature 0. Imports nothing heavy.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parrot_backend.engines.store.conversions import converted, find_gguf
from parrot_backend.engines.store.hub import hub_name
from parrot_backend.engines.store.hub_fetching import fetched
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.parameters import GenerationConfig

logger = logging.getLogger(__name__)

FILE = "generation_config.json"
# Ours by the names of the file.
_FIELDS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_new_tokens": "max_tokens",
}


def generation_config(
    model: str, source: str = "auto", override: Mapping[str, Any] | None = None
) -> GenerationConfig:
    """What rules where a request says nothing.

    Args:
        model: what is loaded: a folder, a GGUF file or a hub id.
        source: `auto` is the model's own file, but for what can't be; `vllm` none, so that OpenAI's
            values rule; anything else a folder with another one.
        override: fields by the file's names, instead of what it says; None takes a value off.

    Raises:
        InvalidRequestError: a value can't be, or an overriding field does not count.
        ParrotError: the model can't be had: see `hub_fetching`; or its GGUF file can't be converted.
    """
    check_override(override := override or {})
    told, where = ({}, "") if source == "vllm" else _read(model if source == "auto" else source)
    kept = {name: value for name, value in told.items() if name not in override}
    if source == "auto":
        kept = {name: value for name, value in kept.items() if _can_be(name, value, where)}
    return _checked(kept, where).model_copy(update=_values(override))


def check_override(override: Mapping[str, Any]) -> None:
    """Refuse what can't override.

    Raises:
        InvalidRequestError: a field does not count, or its value is none.
    """
    if unknown := sorted(override.keys() - _FIELDS.keys()):
        raise InvalidRequestError(
            f"override_generation_config: {unknown[0]} does not count; what does: "
            f"{', '.join(_FIELDS)}",
            param=unknown[0],
        )
    _checked(override, "override_generation_config: ")


def store_generation_config(config: GenerationConfig, folder: Path) -> None:
    """Have the file in `folder` say this, and whatever does not count stay."""
    told, where = _read(str(folder))
    if _checked(told, where) == config:
        return
    rest = {name: value for name, value in told.items() if name not in _FIELDS}
    ours = {
        name: getattr(config, field)
        for name, field in _FIELDS.items()
        if field in config.model_fields_set
    }
    fresh = folder / f".{FILE}.partial"
    fresh.write_text(
        json.dumps({**rest, "do_sample": config.temperature > 0, **ours}, indent=2) + "\n"
    )
    os.replace(fresh, folder / FILE)


def _can_be(name: str, value: Any, where: str) -> bool:
    """A model is of use all the same where its makers wrote what we can't follow."""
    try:
        _checked({name: value}, where)
    except InvalidRequestError as error:
        logger.warning("%s; left out", error.message)
        return False
    return True


def _values(told: Mapping[str, Any]) -> dict[str, Any]:
    return {field: told[name] for name, field in _FIELDS.items() if told.get(name) is not None}


def _checked(told: Mapping[str, Any], where: str) -> GenerationConfig:
    try:
        return GenerationConfig.model_validate(_values(told), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = next(name for name, field in _FIELDS.items() if field == first["loc"][0])
        raise InvalidRequestError(
            f"{where}{name} is {first['input']!r}: {first['msg']}", param=name
        ) from None


def _read(model: str) -> tuple[dict[str, Any], str]:
    """What the file of a model says, and how errors name it; nothing where there is none."""
    file = _file(model)
    if file is None:
        return {}, ""
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"can't read {file}: {error}") from None
    if not isinstance(told, dict):
        raise InvalidRequestError(f"{file} holds no JSON object")
    return told, f"{file}: "


def _file(model: str) -> Path | None:
    place = Path(model).expanduser()
    if not place.exists() and (named := hub_name(model)):
        place = fetched(named)
    gguf = find_gguf(place)
    file = (converted(gguf) if gguf else place) / FILE
    return file if file.is_file() else None
