"""Which answers the grammar of a request with tools lets through, byte by byte."""

import pytest
from llguidance import LLMatcher, LLTokenizer

from parrot_backend.endpoints.generation import grammar_of, sampling_of
from parrot_backend.wire.parameters import OPENAI_DEFAULTS
from tests.programs import request
from tests.tools import NOW, ORDER, WEATHER, named, written

TOKENIZER = LLTokenizer("byte")
TOOLS = [WEATHER, ORDER, NOW]
LIMA = written("get_weather", city="Lima", unit="celsius")
FOOD = written(
    "order-food", items=[{"dish": "salad", "count": 2}], address={"street": "A", "zip": "01234"}
)
TIME = written("now")
COLOUR = {
    "type": "json_schema",
    "json_schema": {"name": "c", "schema": {"type": "object", "properties": {"c": {"enum": [1]}}}},
}


def allows(answer: str, **parameters: object) -> bool:
    """Whether `answer` as a whole is an answer to a request with these parameters."""
    grammar = grammar_of(request("x", **{"tools": TOOLS, **parameters}))
    assert grammar is not None
    assert (grammar.kind, grammar.param) == ("lark", "tools")
    matcher = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(grammar.source), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(answer.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("text", ["", "Hi.\n\nA <tool> {", "<tool_cal l>", "🦜", "a <tool_"])
def test_text_is_free_unless_a_call_is_forced(text: str) -> None:
    assert allows(text)
    assert allows(text, tool_choice="none")
    assert not allows(text, tool_choice="required")
    assert not allows(text, tool_choice=named("now"))


@pytest.mark.parametrize("calls", [LIMA, FOOD, TIME, f"{LIMA}\n{TIME}", "\n".join([TIME] * 32)])
def test_calls_are_allowed_unless_refused(calls: str) -> None:
    assert allows(calls)
    assert allows(f"I look.\n{calls}")
    assert allows(calls, tool_choice="required")
    assert not allows(f"I look.\n{calls}", tool_choice="required")
    assert not allows(calls, tool_choice="none")
    assert allows(calls, parallel_tool_calls=False) == ("\n<tool_call>" not in calls)
    assert not allows(f"{calls} And more.")


def test_a_named_tool_is_called_once() -> None:
    assert allows(TIME, tool_choice=named("now"))
    assert not allows(LIMA, tool_choice=named("now"))
    assert not allows(f"{TIME}\n{TIME}", tool_choice=named("now"))
    assert not allows("\n".join([TIME] * 33), tool_choice="required")


@pytest.mark.parametrize(
    "call",
    [
        written("nobody"),
        written("get_weather"),
        written("get_weather", city=5),
        written("get_weather", city="Lima", unit="kelvin"),
        written("get_weather", city="Lima", made="up"),
        written("now", made="up"),
        written("order-food", items=[], address={"street": "A", "zip": "01234"}),
        written(
            "order-food", items=[{"dish": "pizza", "count": 1}], address={"street": "A", "zip": "x"}
        ),
        LIMA.replace(": ", ":"),
        LIMA[:-1],
        "<tool_call>",
    ],
)
def test_nothing_but_valid_calls_follows_an_opening(call: str) -> None:
    assert not allows(call)
    assert not allows(f"Well: {call}")
    assert not allows(call, tool_choice="required")


def test_beside_a_response_format_it_is_either_that_or_calls() -> None:
    for answer in ('{"c": 1}', LIMA, f"{TIME}\n{TIME}"):
        assert allows(answer, response_format=COLOUR)
    for answer in ("Hi", '{"c": 2}', f'{{"c": 1}}\n{LIMA}'):
        assert not allows(answer, response_format=COLOUR)
    assert not allows('{"c": 1}', response_format=COLOUR, tool_choice="required")
    alone = grammar_of(request("x", tools=TOOLS, response_format=COLOUR, tool_choice="none"))
    assert alone == grammar_of(request("x", response_format=COLOUR))


def test_the_most_tools_fit_in_a_grammar() -> None:
    function = ORDER["function"]
    tools = [{"type": "function", "function": {**function, "name": f"f{i}"}} for i in range(128)]
    call = FOOD.replace("order-food", "f127")
    assert allows(call, tools=tools)
    grammar = grammar_of(request("x", tools=tools))
    assert grammar is not None
    assert len(grammar.source) < 2**17


def test_stop_strings_count_only_in_front_of_calls() -> None:
    tools = {"tools": TOOLS, "stop": ["x"]}
    assert sampling_of(request("x", **tools), OPENAI_DEFAULTS).no_stop_after == "<tool_call>"
    assert (
        sampling_of(request("x", **tools, tool_choice="none"), OPENAI_DEFAULTS).no_stop_after
        is None
    )
    assert sampling_of(request("x", stop=["x"]), OPENAI_DEFAULTS).no_stop_after is None
