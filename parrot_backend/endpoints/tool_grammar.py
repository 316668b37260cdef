"""What an answer must match where tools are offered, as a grammar in llguidance's dialect of Lark."""

import json
from typing import Any, TypeGuard

from parrot_backend.endpoints.json_schema import narrowed
from parrot_backend.engines.base import JSON_STYLE, Grammar
from parrot_backend.engines.tool_format import ENDING, OPENING, SEPARATOR, head_of
from parrot_backend.wire.parameters import GenerationParameters
from parrot_backend.wire.tools import ChatParameters, Function, NamedTool

_MOST_CALLS = 32
_ANYTHING = "(?s:.*)"


def may_call(request: GenerationParameters) -> TypeGuard[ChatParameters]:
    """Whether the answer may have tool calls."""
    return (
        isinstance(request, ChatParameters)
        and bool(request.tools)
        and request.tool_choice != "none"
    )


def must_call(request: ChatParameters) -> bool:
    """Whether the answer is nothing but tool calls."""
    return request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)


def tool_grammar(request: ChatParameters, answer: dict[str, Any] | None) -> Grammar:
    """The grammar of an answer to a request with tools.

    Args:
        request: it offers at least one tool.
        answer: the JSON schema of an answer that calls no tool; None where that is free text, which
            calls may follow.
    """
    opening = json.dumps(OPENING)
    if request.tool_choice == "none":
        rules = ["start: TEXT", f"TEXT: ~/{_ANYTHING}{OPENING}{_ANYTHING}/"]
    elif must_call(request):
        rules = [f"start: {opening} calls", *_calls(request)]
    elif answer is not None:
        rules = [f"start: answer | {opening} calls", f"answer: {_json(answer)}", *_calls(request)]
    else:
        # A lazy rule ends where it first can: there is no free text with an opening in it.
        rules = ["start: TEXT | opening calls", f"opening[lazy]: TEXT {opening}"]
        rules += [f"TEXT: /{_ANYTHING}/", *_calls(request)]
    return Grammar("lark", "\n".join(["%llguidance {}", *rules]), "tools")


def _calls(request: ChatParameters) -> list[str]:
    """Rules for everything behind the first opening."""
    choice = request.tool_choice
    functions = [tool.function for tool in request.tools or ()]
    more = f" ({json.dumps(SEPARATOR + OPENING)} call){{0,{_MOST_CALLS - 1}}}"
    if isinstance(choice, NamedTool):
        functions = [function for function in functions if function.name == choice.function.name]
    if isinstance(choice, NamedTool) or request.parallel_tool_calls is False:
        more = ""
    names = [f"call_{number}" for number in range(len(functions))]
    calls = [f"{name}: {_call(f)}" for name, f in zip(names, functions, strict=True)]
    return [f"calls: call{more}", f"call: {' | '.join(names)}", *calls]


def _call(function: Function) -> str:
    # Without a schema there are no arguments.
    schema = {"properties": {}, **(function.parameters or {}), "type": "object"}
    return f"{json.dumps(head_of(function.name))} {_json(narrowed(schema))} {json.dumps(ENDING)}"


def _json(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"
