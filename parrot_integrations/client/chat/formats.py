"""Answers that are JSON: how they are asked for, and what can be read of one before it is whole."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

_LONGEST_NAME = 64
CUT_OFF = (
    "The answer was cut off at its token limit before it was complete: raise max_tokens, or ask for "
    "less."
)


def response_format(json_schema: dict[str, Any]) -> dict[str, Any]:
    """A named schema as OpenAI's `response_format`."""
    return {"type": "json_schema", "json_schema": json_schema}


def class_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The named schema of a class, pydantic's own: conversions lose what refers to itself."""
    return {"name": schema.__name__[:_LONGEST_NAME], "schema": schema.model_json_schema()}


def is_json(text: str) -> bool:
    """Whether a text is one whole JSON value."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def partial_json(text: str) -> Any:
    """The value that a text begins: what is there of its strings, lists and objects.

    None where nothing of it is there yet, or it is no JSON.
    """
    try:
        return from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None
