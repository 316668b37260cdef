"""Tools in prompts: through templates that know them as answers have them, and through all others."""

from dataclasses import replace
from typing import Any

import pytest

from parrot_backend.engines.torch_engine.chat_template import ChatTemplate
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.protocol import ChatRequest
from tests.tools import NOW, WEATHER, written

CALLS = [
    {"id": "c1", "function": {"name": "get_weather", "arguments": '{"city": "Lima"}'}},
    {"id": "c2", "function": {"name": "now", "arguments": ""}},
]
USER = {"role": "user", "content": "hi"}
AGENT = [
    USER,
    {"role": "assistant", "content": "I look.", "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c2", "content": "noon"},
]
RESULTS = "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"

# As Qwen's: tools listed, calls with their arguments as JSON, results as a user's message.
KNOWS = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '\n<tool_call>\n' }}"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}"
    "{% endfor %}"
)
# As Llama's: it has tools, but other calls.
OTHER = KNOWS.replace("<tool_call>", "<|python_tag|>").replace('"arguments"', '"parameters"')
# As Gemma's: no system message, and the roles alternate.
STRICT = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
PICKY = KNOWS.replace(
    "{% for m",
    "{% for t in tools or [] if not t.function.description %}"
    "{{ raise_exception('described') }}{% endfor %}{% for m",
    1,
)


@pytest.fixture
def render(tiny: LoadedModel) -> Any:
    def render(template: str | None, messages: list[Any], tools: list[Any] | None = None) -> str:
        tokenizer = tiny.tokenizer
        if template is not None:
            tokenizer = replace(tokenizer, chat_templates={"default": template})
        request = ChatRequest.model_validate({"messages": messages, "tools": tools})
        tokens = ChatTemplate(tokenizer).encode(request.messages, request.tools or ())
        return str(tokenizer.decode(tokens))

    return render


def test_a_template_that_knows_tools_gets_them_as_they_are(render: Any) -> None:
    text = render(KNOWS, AGENT, [{**NOW, "function": {**NOW["function"], "strict": True}}])
    calls = f"{written('get_weather', city='Lima')}\n{written('now')}"
    assert text == (
        '<tools>{"type": "function", "function": {"name": "now"}}</tools>'
        f"<user>hi<assistant>I look.\n{calls}<tool>sunny<tool>noon"
    )
    assert render(KNOWS, AGENT).startswith("<user>")


@pytest.mark.parametrize("template", [None, OTHER])
def test_any_other_has_them_as_text(render: Any, template: str | None) -> None:
    text = render(template, AGENT, [WEATHER])
    assert "\n</tools>" in text
    assert '<tools>\n{"type": "function", "function": {"name": "get_weather"' in text
    assert f"I look.\n{written('get_weather', city='Lima')}\n{written('now')}" in text
    assert f"<user>{RESULTS}" in text
    assert text.index("<system>") < text.index("get_weather") < text.index("<user>")


def test_tools_come_before_the_system_message_s_own_text(render: Any) -> None:
    brief, long = (
        render(None, [{"role": "system", "content": content}, USER], [WEATHER, NOW])
        for content in ("Be brief.", "Be long.")
    )
    assert brief.startswith("<system># Tools")
    shared = brief.index("Be brief.")
    assert brief[:shared] == long[:shared]
    assert brief[shared:] == "Be brief.</system><user>hi</user><assistant>"


def test_a_template_without_system_messages_is_told_by_the_user(render: Any) -> None:
    text = render(STRICT, AGENT, [NOW])
    assert text.startswith("<user># Tools")
    assert "</tool_call>\n\nhi<assistant>I look." in text
    assert text.endswith(f"<user>{RESULTS}")
    with pytest.raises(InvalidRequestError, match="turns"):
        render(STRICT, [USER, USER], [NOW])


def test_where_a_template_refuses_a_tool_it_is_text(render: Any) -> None:
    assert render(PICKY, [USER], [WEATHER]).startswith('<tools>{"type"')
    assert render(PICKY, [USER], [NOW]).startswith("<system># Tools")


def test_arguments_that_were_cut_short_are_text(render: Any) -> None:
    cut = {"id": "c", "function": {"name": "now", "arguments": '{"zone": "U'}}
    messages = [USER, {"role": "assistant", "tool_calls": [cut]}]
    assert '"arguments": {"zone": "U}' in render(None, messages)
    assert '"arguments": "{\\"zone\\": \\"U"}' in render(KNOWS, messages)


def test_without_tools_nothing_changes(render: Any) -> None:
    assert render(None, [USER], []) == "<user>hi</user><assistant>"
