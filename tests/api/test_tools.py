"""Tool calls over HTTP, through the official client, from an engine that says what it is told to."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from parrot_backend.wire.protocol import CLAIMED_HEADER
from tests.doubles import ScriptedEngine
from tests.servers import serving
from tests.tools import NOW, WEATHER, named, written

LIMA = written("get_weather", city="Lima", unit="celsius")
TIME = written("now")
ANSWERS = {
    "call": LIMA,
    "both": f"I look.\n{LIMA}\n{TIME}",
    "talk": "Hi <there>.",
    "callsunny": "It is sunny.",
}
TOOLS = [WEATHER, NOW]
USER = {"role": "user", "content": "call"}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(ScriptedEngine(lambda prompt: ANSWERS.get(prompt, prompt))) as base:
        yield base


def body(content: str, **more: object) -> dict[str, object]:
    user = {"role": "user", "content": content}
    return {"model": "scripted", "messages": [user], "tools": TOOLS, **more}


def test_a_call_has_openai_s_shape(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(**body("call")).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.id.startswith("call_")
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert call.function.arguments == '{"city": "Lima", "unit": "celsius"}'


def test_text_and_several_calls(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**body("both", n=2, logprobs=True, seed=1))
    for choice in answer.choices:
        assert choice.message.content == "I look."
        assert [c.function.name for c in choice.message.tool_calls] == ["get_weather", "now"]
        assert "".join(t.token for t in choice.logprobs.content) == ANSWERS["both"]
    assert len({c.id for choice in answer.choices for c in choice.message.tool_calls}) == 4


def test_text_alone_has_no_calls(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(**body("talk")).choices
    assert (choice.message.content, choice.finish_reason) == ("Hi <there>.", "stop")
    assert choice.message.tool_calls is None
    refused = client.chat.completions.create(**body("call", tool_choice="none")).choices[0]
    assert (refused.message.content, refused.finish_reason) == (LIMA, "stop")


@pytest.mark.parametrize("content", ["call", "both", "talk"])
def test_a_stream_assembled_is_the_whole_answer(client: openai.OpenAI, content: str) -> None:
    whole = client.chat.completions.create(**body(content)).choices[0]
    with client.chat.completions.stream(**body(content)) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == whole.finish_reason
    assert streamed.message.content == whole.message.content
    assert [
        (call.type, call.function.name, call.function.arguments)
        for call in streamed.message.tool_calls or ()
    ] == [
        (call.type, call.function.name, call.function.arguments)
        for call in whole.message.tool_calls or ()
    ]


def test_a_streamed_call_is_named_first_and_its_arguments_come_as_they_are_generated(
    client: openai.OpenAI,
) -> None:
    chunks = list(client.chat.completions.create(**body("both"), stream=True))
    pieces = [piece for c in chunks for piece in c.choices[0].delta.tool_calls or ()]
    names = {p.index: p.function.name for p in pieces if p.id}
    assert names == {0: "get_weather", 1: "now"}
    first = [next(p for p in pieces if p.index == index) for index in (0, 1)]
    assert [p.type for p in first] == ["function", "function"]
    assert [p.function.arguments for p in first] == ["", ""]
    assert len(pieces) > 20
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_a_planned_call_with_tools_is_claimed(url: str, stream: bool) -> None:
    parameters = {"tools": TOOLS, "tool_choice": "required"}
    calls = [
        {
            "id": "a",
            "output": "a.out",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "both"}]}],
            **parameters,
        },
        {
            "id": "b",
            "output": "b.out",
            "messages": [
                {"role": "user", "content": [{"type": "variable", "name": "a.out"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "!"}]},
            ],
        },
    ]
    session = httpx.post(f"{url}/v1/sessions", json={"program": {"calls": calls}}).json()["id"]
    path = f"{url}/v1/sessions/{session}"
    assert httpx.get(f"{path}/variables/a.out").json()["value"] == "I look."
    assert httpx.get(f"{path}/variables/b.out").json()["value"] == "I look.!"
    other = httpx.post(f"{path}/calls", json=body("both"))
    assert other.headers[CLAIMED_HEADER] == "false"
    claimed = httpx.post(f"{path}/calls", json=body("both", tool_choice="required", stream=stream))
    assert claimed.headers[CLAIMED_HEADER] == "true"
    assert claimed.text.replace(" ", "").count('"name":"get_weather"') == 1
    turn = {"messages": [{"role": "user", "content": "I look."}, *calls[1]["messages"][1:]]}
    turn["messages"][2] = {"role": "tool", "tool_call_id": "c1", "content": "!"}
    assert httpx.post(f"{path}/calls", json=turn).headers[CLAIMED_HEADER] == "true"
    httpx.delete(path)


def test_the_official_client_sends_its_answer_back(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(**body("call")).choices[0].message
    (call,) = message.tool_calls
    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": [{"type": "text", "text": "sunny"}],
    }
    second = client.chat.completions.create(
        model="scripted", messages=[USER, message, result], tools=TOOLS
    )
    assert second.choices[0].message.content == "It is sunny."
    assert second.choices[0].finish_reason == "stop"


def tool(name: str = "f", **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **more}}


def nested(levels: int) -> dict[str, object]:
    return {"type": "object", "properties": {"a": nested(levels - 1)}} if levels else {}


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"tools": "f"}, "tools", "valid list"),
        ({"tools": [{"type": "function"}]}, "tools.0.function", "Field required"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "'function'"),
        ({"tools": [tool("a b")]}, "tools.0.function.name", "pattern"),
        ({"tools": [tool("n" * 65)]}, "tools.0.function.name", "pattern"),
        ({"tools": [tool("")]}, "tools.0.function.name", "pattern"),
        ({"tools": [tool(), tool("g"), tool()]}, "tools", "several tools have the name 'f'"),
        ({"tools": [tool(f"f{i}") for i in range(129)]}, "tools", "at most 128"),
        ({"tools": [tool(parameters=[])]}, "tools.0.function.parameters", "valid dictionary"),
        (
            {"tools": [tool(parameters={"type": "string"})]},
            "tools.0.function.parameters",
            "must be 'object'",
        ),
        (
            {"tools": [tool(parameters=nested(40))]},
            "tools.0.function.parameters",
            "more than 64 levels",
        ),
        ({"tools": [tool(code="x")]}, "tools.0.function.code", "not known"),
        (
            {"tools": [tool(description="x" * 140_000)]},
            "tools",
            "characters, the most are 131072",
        ),
        (
            {"tools": [tool()], "structured_outputs": {"regex": "a"}},
            "tools",
            "use response_format",
        ),
        ({"tool_choice": "maybe"}, "tool_choice", "'none', 'auto', 'required' or {"),
        ({"tool_choice": 1}, "tool_choice", "'none', 'auto', 'required' or {"),
        (
            {"tool_choice": named("g")},
            "tool_choice",
            "there is no tool 'g'; there are: get_weather",
        ),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function.function", "required"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "there are no tools to call"),
        ({"tools": [], "tool_choice": named("f")}, "tool_choice", "there are no tools to call"),
        ({"parallel_tool_calls": "some"}, "parallel_tool_calls", "valid boolean"),
        ({"functions": [{"name": "f"}]}, "functions", "send 'tools' instead"),
        ({"function_call": "auto"}, "function_call", "send 'tool_choice'"),
        (
            {"messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}]},
            "messages.1.function_call",
            "'tool_calls' in a message",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            "messages.1.tool_calls.0.function",
            "Field required",
        ),
        (
            {"messages": [{**USER, "tool_calls": [CALL]}]},
            "messages.0.tool_calls",
            "only messages of the assistant",
        ),
        (
            {"messages": [{"role": "tool", "content": "5"}]},
            "messages.0.tool_call_id",
            "the id of the call it answers",
        ),
        (
            {"messages": [USER, {"role": "tool", "tool_call_id": "c1", "content": "5"}]},
            "messages",
            "messages.1.tool_call_id: no call before it has the id 'c1'",
        ),
    ],
)
def test_bad_tools_name_the_field(
    url: str, more: dict[str, object], param: str, message: str
) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json={**body("x"), **more})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


def test_a_bad_plan_names_the_call(url: str) -> None:
    message = {"role": "user", "content": []}
    call = {"id": "a", "output": "o", "messages": [message], "tools": [tool()]}
    program = {"calls": [{**call, "tool_choice": named("g")}]}
    error = httpx.post(f"{url}/v1/sessions", json={"program": program}).json()["error"]
    assert error["param"] == "program.calls.0.tool_choice"
    assert "there is no tool 'g'" in error["message"]
