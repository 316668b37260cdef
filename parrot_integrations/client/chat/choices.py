"""Which tools an answer has to call, from all forms that the frameworks have for it."""

from collections.abc import Mapping, Sequence
from typing import Any

ToolChoice = dict[str, Any] | str | bool

_MODES = {"auto": "auto", "none": "none", "any": "required", "required": "required"}


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
