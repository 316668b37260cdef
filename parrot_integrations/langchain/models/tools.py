"""Tools and formats of answers as the wire has them, from all that LangChain takes for one."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_function, convert_to_openai_tool
from pydantic import BaseModel

from parrot_integrations.client.chat.formats import class_schema, response_format

AnyTool = dict[str, Any] | type | Callable[..., Any] | BaseTool
Schema = dict[str, Any] | type


def wire_tools(tools: Sequence[AnyTool], strict: bool | None = None) -> list[dict[str, Any]]:
    """Tools, functions, classes or schemas as OpenAI's tools."""
    return [convert_to_openai_tool(tool, strict=strict) for tool in tools]


def wire_response_format(schema: Schema, strict: bool | None = None) -> dict[str, Any]:
    """A class or a schema as OpenAI's `response_format`; one in that form already is kept.

    Raises:
        ValueError: `strict` contradicts the one in the schema.
    """
    json_schema = _json_schema(schema, strict)
    given = json_schema.get("strict")
    if strict is not None and given not in (None, strict):
        raise ValueError(f"strict is {strict} here and {given} in the schema: give it once")
    if strict is not None:
        json_schema["strict"] = strict
    return response_format(json_schema)


def _json_schema(schema: Schema, strict: bool | None) -> dict[str, Any]:
    if isinstance(schema, dict) and schema.get("type") == "json_schema":
        return dict(schema["json_schema"])
    if isinstance(schema, dict) and "name" in schema and "schema" in schema:
        return dict(schema)
    if not strict and isinstance(schema, type) and issubclass(schema, BaseModel):
        return class_schema(schema)
    function = convert_to_openai_function(schema, strict=strict)
    function["schema"] = function.pop("parameters", {"type": "object"})
    return function
