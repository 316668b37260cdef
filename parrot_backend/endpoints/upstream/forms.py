"""The form that an answer must have, as a server is asked for it."""

import json
import re
from typing import Any

from parrot_backend.endpoints.json_schema import narrowed
from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.engines.base import JSON_STYLE
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.parameters import JsonObjectFormat, StructuredOutputs
from parrot_backend.wire.text_protocol import LLMRequest

# Where llguidance writes the JSON, it is told how: a model can't go on with white space for ever.
_STYLE = {"x-guidance": JSON_STYLE}


def refused(what: str, param: str, dialect: Dialect, advice: str = "leave it out") -> Exception:
    """What a dialect has no words for, with the field that asked for it."""
    return InvalidRequestError(
        f"{what} is not offered by what runs this model ({dialect.name}): {advice}", param=param
    )


def form_of(request: LLMRequest, dialect: Dialect) -> dict[str, Any]:
    """The fields that ask for the form of the answer.

    Raises:
        InvalidRequestError: the server can't be asked for it.
    """
    if request.structured_outputs is not None:
        return _outputs(request.structured_outputs, dialect)
    if request.response_format is None:
        return {}
    if dialect.structured == "none":
        raise refused("response_format", "response_format", dialect)
    if isinstance(request.response_format, JsonObjectFormat):
        return _json_object(dialect)
    told = request.response_format.json_schema
    schema = narrowed(told.schema_) if dialect.narrows else told.schema_
    if dialect.styles:
        return {"structured_outputs": {"json": schema | _STYLE}}
    return _json_schema(told.name, schema, told.strict)


def _json_object(dialect: Dialect) -> dict[str, Any]:
    if dialect.styles:
        return {"structured_outputs": {"json": {"type": "object"} | _STYLE}}
    if dialect.json_object:
        return {"response_format": {"type": "json_object"}}
    return _json_schema("answer", {"type": "object"})


def _json_schema(name: str, schema: dict[str, Any], strict: bool | None = True) -> dict[str, Any]:
    told = {"name": name, "schema": schema} | ({} if strict is None else {"strict": strict})
    return {"response_format": {"type": "json_schema", "json_schema": told}}


def _outputs(outputs: StructuredOutputs, dialect: Dialect) -> dict[str, Any]:
    if dialect.structured == "structured_outputs":
        return {"structured_outputs": outputs.model_dump(exclude_none=True, by_alias=True)}
    schema = outputs.json_
    if schema is not None and dialect.structured != "none":
        return _json_schema("answer", json.loads(schema) if isinstance(schema, str) else schema)
    if dialect.structured == "regex" and outputs.regex is not None:
        return {"regex": outputs.regex}
    if dialect.structured == "regex" and outputs.choice is not None:
        return {"regex": "(" + "|".join(map(re.escape, outputs.choice)) + ")"}
    if dialect.structured == "gbnf" and outputs.choice is not None:
        texts = (json.dumps(text, ensure_ascii=False) for text in outputs.choice)
        return {"grammar": "root ::= " + " | ".join(texts)}
    (kind,) = outputs.model_dump(exclude_none=True, by_alias=True)
    raise refused(f"structured_outputs.{kind}", "structured_outputs", dialect)
