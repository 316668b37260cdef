"""Init arguments that a model class does not know: warned of, and sent with each request."""

import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

# Of `ChatOpenAI`. A key must not end in the request's body, nor in what is traced.
_OTHER_NAMES = {"openai_api_key": "api_key", "openai_api_base": "base_url"}
# From here through pydantic's and LangChain's `__init__` to the line that makes the model.
_STACK_LEVEL = 6


def with_model_kwargs(values: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """Init arguments with those that are no field moved to `model_kwargs`, and fields out of it.

    This is what LangChain's own models do (`_build_model_kwargs`).

    Raises:
        ValueError: an argument is also in `model_kwargs`, or has another name here.
    """
    known = {name for field, info in fields.items() for name in _names(field, info)}
    further = dict(values.get("model_kwargs") or {})
    if twice := sorted(further.keys() & values.keys()):
        raise ValueError(f"{', '.join(twice)}: given as an argument and in model_kwargs")
    for theirs, ours in _OTHER_NAMES.items():
        if theirs in values:
            raise ValueError(f"{theirs} is called {ours} here")
    unknown = {name: value for name, value in values.items() if name not in known}
    if unknown:
        _warn(
            f"{', '.join(sorted(unknown))}: no argument of this class, and sent with each request "
            "as part of model_kwargs. Is it spelled right?"
        )
    misplaced = {name: value for name, value in further.items() if name in known}
    if misplaced:
        _warn(f"{', '.join(sorted(misplaced))}: give it as an argument, not in model_kwargs")
    rest = {name: value for name, value in values.items() if name in known}
    further = {name: value for name, value in further.items() if name not in misplaced}
    return {**rest, **misplaced, "model_kwargs": {**further, **unknown}}


def _names(field: str, info: FieldInfo) -> set[str]:
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias, info.alias]
    return {field, *(choice for choice in choices if isinstance(choice, str))}


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=_STACK_LEVEL)
