"""Tools and formats of answers as the wire has them, from all that LangChain takes for one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_function, convert_to_openai_tool
from pydantic import BaseModel

AnyTool = dict[str, Any] | type | Callable[..., Any] | BaseTool
ToolChoice = dict[str, Any] | str | bool
Schema = dict[str, Any] | type

_MODES = {"auto": "auto", "none": "none", "any": "required", "required": "required"}


def wire_tools(tools: Sequence[AnyTool], strict: bool | None = None) -> list[dict[str, Any]]:
    """Tools, functions, classes or schemas as OpenAI's tools."""
    return [convert_to_openai_tool(tool, strict=strict) for tool in tools]


def wire_tool_choice(
    choice: ToolChoice | None, tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | str | None:
    """What the model has to call; None where it is free to.

    Args:
        choice: "auto", "none", "any", "required" or a tool's name; True for "any", False or None for
            no choice; or a dict in OpenAI's form.
        tools: those to choose from, as the wire has them.

    Raises:
        ValueError: a name that no tool has.
        TypeError: none of these forms.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return "required"
    if isinstance(choice, dict):
        return choice
    if not isinstance(choice, str):
        raise TypeError(
            f"tool_choice is a {type(choice).__name__}; give a str, a bool, a dict or None"
        )
    names = [tool_name(tool) for tool in tools]
    if choice in names:
        return {"type": "function", "function": {"name": choice}}
    if choice not in _MODES:
        raise ValueError(
            f"tool_choice is {choice!r}, and there is no such tool; "
            f"give one of {', '.join([*map(repr, _MODES), *map(repr, names)])}"
        )
    return _MODES[choice]


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name of a tool in OpenAI's form."""
    return str(tool.get("function", tool).get("name", ""))


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
    return {"type": "json_schema", "json_schema": json_schema}


def _json_schema(schema: Schema, strict: bool | None) -> dict[str, Any]:
    if isinstance(schema, dict) and schema.get("type") == "json_schema":
        return dict(schema["json_schema"])
    if isinstance(schema, dict) and "name" in schema and "schema" in schema:
        return dict(schema)
    if not strict and isinstance(schema, type) and issubclass(schema, BaseModel):
        # Pydantic's own: LangChain's conversion loses what refers to itself, such as trees.
        return {"name": schema.__name__, "schema": schema.model_json_schema()}
    function = convert_to_openai_function(schema, strict=strict)
    function["schema"] = function.pop("parameters", {"type": "object"})
    return function
