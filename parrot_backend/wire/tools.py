"""Wire types of tools: what a model may call, what it must call, what it has called. As OpenAI's."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from parrot_backend.wire.parameters import GenerationParameters, WireModel
from parrot_backend.wire.unicode import JsonObject, JsonText, Unicode

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
ToolMode = Literal["none", "auto", "required"]

_LONGEST_TOOLS = 2**17


class Function(WireModel):
    """A function that the model may call.

    `parameters` is the JSON schema of its arguments, an object; without it there are none. Arguments
    follow it always, `strict` or not.
    """

    name: ToolName
    description: Unicode | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _describe_an_object(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema and schema.get("type", "object") != "object":
            raise ValueError("arguments are a JSON object: the schema's type must be 'object'")
        return schema


class Tool(WireModel):
    """OpenAI's wrapping of a function."""

    type: Literal["function"]
    function: Function


class FunctionName(WireModel):
    """Names one of the functions."""

    name: Unicode


class NamedTool(WireModel):
    """The one tool that must be called."""

    type: Literal["function"]
    function: FunctionName


def _kind_of_choice(choice: Any) -> str | None:
    if isinstance(choice, str):
        return "mode" if choice in ("none", "auto", "required") else None
    return "function" if isinstance(choice, dict | NamedTool) else None


ToolChoice = Annotated[
    Annotated[ToolMode, Tag("mode")] | Annotated[NamedTool, Tag("function")],
    Discriminator(
        _kind_of_choice,
        custom_error_type="tool_choice",
        custom_error_message=(
            "give 'none', 'auto', 'required' or "
            '{"type": "function", "function": {"name": ...}}'
        ),
    ),
]


class FunctionCall(WireModel):
    """What was called: `arguments` is JSON text, which is cut short where the answer was."""

    name: str = Field(min_length=1)
    arguments: JsonText = ""


class ToolCall(WireModel):
    """One call in an assistant's message; the tool's message answers it under its `id`."""

    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatParameters(GenerationParameters):
    """How a chat's answer goes: text, or calls of `tools`."""

    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @field_validator("tools")
    @classmethod
    def _can_be_offered(cls, tools: list[Tool] | None, others: ValidationInfo) -> list[Tool] | None:
        names = Counter(tool.function.name for tool in tools or ())
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"several tools have the name '{twice[0]}'")
        size = sum(len(tool.model_dump_json()) for tool in tools or ())
        if size > _LONGEST_TOOLS:
            raise ValueError(f"they have {size} characters, the most are {_LONGEST_TOOLS}")
        if tools and others.data.get("structured_outputs"):
            raise ValueError("structured_outputs do not go with tools: use response_format")
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _names_a_tool(
        cls, choice: ToolMode | NamedTool | None, others: ValidationInfo
    ) -> ToolMode | NamedTool | None:
        if choice in (None, "none", "auto"):
            return choice
        if "tools" not in others.data:  # they are at fault themselves
            return choice
        names = [tool.function.name for tool in others.data["tools"] or ()]
        if not names:
            raise ValueError("there are no tools to call: give tools")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise ValueError(
                f"there is no tool '{choice.function.name}'; there are: {', '.join(names)}"
            )
        return choice


def without_neutral_tools(body: dict[str, Any]) -> dict[str, Any]:
    """A request's body without what changes nothing about tools; clients send it all the same."""
    offered = bool(body.get("tools"))
    neutral: dict[str, tuple[Any, ...]] = {
        "tools": (None, []),
        "tool_choice": (None, "auto") if offered else (None, "none", "auto"),
        "parallel_tool_calls": (None, True) if offered else (None, True, False),
        "functions": (None, []),
        "function_call": (None,),
    }
    return {k: v for k, v in body.items() if k not in neutral or v not in neutral[k]}
