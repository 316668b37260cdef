"""The routes over a scripted engine, through real sockets and real clients."""

import json
import threading
from collections.abc import Iterator

import httpx
import openai
import pytest

from parrot_backend.engines.base import ModelCard
from parrot_backend.serving.limits import Limits
from parrot_backend.wire.protocol import CLAIMED_HEADER, SESSION_HEADER, Output, Program
from tests.doubles import ScriptedEngine
from tests.programs import call, join
from tests.servers import eventually, serving


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="module")
def url(scripted: ScriptedEngine) -> Iterator[str]:
    with serving(scripted, limits=Limits(body_bytes=100_000)) as base:
        yield base


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client


def chat(content: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], **more}


PROGRAM = Program(
    variables={"one": "abc", "two": "xyz"},
    transforms=[join("both", "+", "{a.out}", "{b.out}")],
    calls=[call("a", "1:{one}"), call("b", "2:{two}"), call("c", "sum {both}")],
    outputs=[Output(variable="c.out")],
).model_dump()


def test_the_official_client_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.choices[0].message.content == "olleh"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_the_official_client_streams(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            stream=True,
            stream_options={"include_usage": True},
            n=1,
            max_completion_tokens=9,
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "olleh"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10


def test_every_answer_tells_the_same_fingerprint(http: httpx.Client) -> None:
    told = set()
    for path, asked in (("chat/completions", chat("a")), ("completions", {"prompt": "a"})):
        told.add(http.post(f"/v1/{path}", json=asked).json()["system_fingerprint"])
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = http.post(f"/v1/{path}", json={**asked, **options}).text
        chunks = [line for line in streamed.splitlines() if line.startswith("data: {")]
        told |= {json.loads(chunk[6:])["system_fingerprint"] for chunk in chunks}
    assert told == {ModelCard("scripted", 1000).fingerprint}
    assert ModelCard("scripted", 1000, "int8").fingerprint not in told


def test_what_tells_only_of_the_caller_changes_nothing(http: httpx.Client) -> None:
    """Neither the answer nor what a request is equal to."""
    of_caller = {
        "user": "Ann",
        "safety_identifier": "a1",
        "metadata": {"run": "7"},
        "store": False,
        "service_tier": "auto",
    }
    session = http.post("/v1/sessions", json={"program": PROGRAM}).json()["id"]
    claiming = http.post(f"/v1/sessions/{session}/calls", json=chat("1:abc", **of_caller))
    assert claiming.headers[CLAIMED_HEADER] == "true"
    http.delete(f"/v1/sessions/{session}")
    raw = http.post("/v1/completions", json={"prompt": "ab", **of_caller})
    assert raw.status_code == 200


def test_the_official_client_lists_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("scripted", "parrot")
    assert client.models.retrieve("scripted").id == "scripted"
    with pytest.raises(openai.NotFoundError, match="serves 'scripted'"):
        client.models.retrieve("other")


def test_the_official_client_gets_typed_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "FAIL"}]
        )
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "a"}])


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_request_has_its_status_streamed_or_not(http: httpx.Client, stream: bool) -> None:
    answer = http.post("/v1/chat/completions", json=chat("FAIL", stream=stream))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "messages", "Field required"),
        (chat("x", max_tokens=0), "max_tokens", "greater than or equal to 1"),
        (chat("x", temperature="hot"), "temperature", "valid number"),
        (chat("x", min_p=1.5), "min_p", "less than or equal to 1"),
        (chat("x", presence_penalty=2.1), "presence_penalty", "less than or equal to 2"),
        (chat("x", frequency_penalty=-3), "frequency_penalty", "greater than or equal to -2"),
        (chat("x", repetition_penalty=0), "repetition_penalty", "greater than or equal to 0.01"),
        (chat("x", logit_bias={"7": 101}), "logit_bias.7", "less than or equal to 100"),
        (chat("x", logit_bias={"seven": 1}), "logit_bias.seven.[key]", "valid integer"),
        (chat("x", n=0), "n", "greater than or equal to 1"),
        (chat("x", n=129), "n", "less than or equal to 128"),
        (chat("x", logprobs=True, top_logprobs=21), "top_logprobs", "less than or equal to 20"),
        (chat("x", top_logprobs=2), "top_logprobs", "it needs logprobs"),
        (chat("x", response_format={"type": "xml"}), "response_format", "'json_object'"),
        (
            chat("x", response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
            "response_format.json_schema.json_schema.schema",
            "Field required",
        ),
        (chat("x", structured_outputs={}), "structured_outputs", "exactly one"),
        (
            chat("x", structured_outputs={"regex": "a", "json": {}}),
            "structured_outputs",
            "exactly one",
        ),
        (
            chat("x", structured_outputs={"json": {}}, response_format={"type": "json_object"}),
            "structured_outputs",
            "leave out response_format",
        ),
        (chat("x", structured_outputs={"choice": [""]}), "structured_outputs.choice.0", "at least"),
        (chat("x", functions=[{"name": "f"}]), "functions", "send 'tools' instead"),
        (chat("x", tempreature=1), "tempreature", "not known or not supported"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "Input should be"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
            "content parts of type 'image_url' are not supported: text only",
        ),
        (chat("x", store=True), "store", "not known or not supported"),
        (chat("x", service_tier="flex"), "service_tier", "not known or not supported"),
    ],
)
def test_bad_bodies_name_the_field(
    http: httpx.Client, body: dict[str, object], param: str, message: str
) -> None:
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


def test_a_body_that_is_not_json_is_refused(http: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/chat/completions", content=b'{"messages": [', headers=headers)
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json=chat("x" * 200_000))
    assert answer.status_code == 413
    assert "error" in answer.json()


def test_unknown_things_are_404_in_the_same_shape(http: httpx.Client) -> None:
    for method, path in (
        ("GET", "/v1/sessions/s-none"),
        ("DELETE", "/v1/sessions/s-none"),
        ("GET", "/v1/sessions/s-none/events"),
        ("GET", "/nowhere"),
    ):
        answer = http.request(method, path)
        assert answer.status_code == 404
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert (path == "/nowhere") == (
            "no route GET /nowhere" in answer.json()["error"]["message"]
        )
    answer = http.post("/v1/chat/completions", json=chat("x"), headers={SESSION_HEADER: "s-none"})
    assert answer.json()["error"]["code"] == "session_not_found"
    wrong = http.put("/v1/models")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert "no route PUT /v1/models" in wrong.json()["error"]["message"]
    assert http.patch("/v1/sessions").headers["allow"] == "GET, POST"
    assert http.patch("/v1/sessions/s-1").headers["allow"] == "DELETE, GET"


def test_a_session_s_whole_life(http: httpx.Client) -> None:
    opened = http.post("/v1/sessions", json={"program": PROGRAM}).json()
    path = f"/v1/sessions/{opened['id']}"
    value = http.get(f"{path}/variables/c.out", params={"timeout": 5}).json()
    assert value["value"] == "sum cba:1+zyx:2"[::-1]
    native = http.post(f"{path}/calls", json=chat("1:abc"))
    assert native.headers[CLAIMED_HEADER] == "true"
    joined = http.post(
        "/v1/chat/completions", json=chat("2:xyz"), headers={SESSION_HEADER: opened["id"]}
    )
    assert joined.headers[CLAIMED_HEADER] == "true"
    other = http.post(f"{path}/calls", json=chat("something else"))
    assert other.headers[CLAIMED_HEADER] == "false"
    graph = http.get(f"{path}/graph").json()
    assert {c["id"]: c["inputs"] for c in graph["calls"] if c["planned"]} == {
        "a": ["one"],
        "b": ["two"],
        "c": ["both"],
    }
    closed = http.delete(path).json()
    assert (closed["planned"], closed["claimed"], closed["unclaimed"]) == (3, 2, 1)
    kinds = [e["kind"] for e in http.get(f"{path}/events").json()["data"]]
    assert kinds.count("call_claimed") == 2
    seen = len(kinds)
    assert http.get(f"{path}/events", params={"after": seen}).json()["data"] == []


def test_a_bad_program_opens_no_session_and_names_the_call(http: httpx.Client) -> None:
    cycle = Program(calls=[call("a", "{b.out}"), call("b", "{a.out}")]).model_dump()
    answer = http.post("/v1/sessions", json={"program": cycle})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "cycle"
    session = http.post("/v1/sessions").json()["id"]
    missing = Program(calls=[call("a", "{nothing}")]).model_dump()
    answer = http.post(f"/v1/sessions/{session}/program", json=missing)
    assert answer.json()["error"]["param"] == "calls.0"
    assert http.post(f"/v1/sessions/{session}/program", json=PROGRAM).status_code == 200
    assert http.post(f"/v1/sessions/{session}/program", json=PROGRAM).status_code == 409
    http.delete(f"/v1/sessions/{session}")


def grouped(text: dict[str, object], *groups: str) -> dict[str, object]:
    """A call with one message, in concurrency groups."""
    message = {"role": "user", "content": [text]}
    return {"id": "a", "output": "a.out", "messages": [message], "concurrency": groups}


@pytest.mark.parametrize(
    ("program", "param", "code"),
    [
        (
            {"texts": ["x"], "calls": [grouped({"type": "shared", "index": 1})]},
            "calls.0.messages.0.content.0.index",
            "text_missing",
        ),
        (
            {"calls": [grouped({"type": "text", "text": "x"}, "g")]},
            "calls.0.concurrency.0",
            "concurrency_missing",
        ),
        ({"concurrency": {"g": 0}}, "concurrency.g", None),
        ({"transforms": [{"op": "replace", "inputs": [[]], "output": "t"}]}, "transforms.0", None),
    ],
)
def test_what_is_wrong_in_a_program_is_named(
    http: httpx.Client, program: dict[str, object], param: str, code: str | None
) -> None:
    path = f"/v1/sessions/{http.post('/v1/sessions').json()['id']}"
    answer = http.post(f"{path}/program", json=program)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)
    http.delete(path)


def test_a_program_shares_texts_and_keeps_its_concurrency(
    http: httpx.Client, scripted: ScriptedEngine
) -> None:
    release = scripted.hold("shared 1")
    numbered = [{"type": "shared", "index": 0}, {"type": "variable", "name": "n"}]
    calls = [
        {
            "id": name,
            "output": f"{name}.out",
            "messages": [{"role": "user", "content": [*numbered, {"type": "text", "text": tail}]}],
            "concurrency": ["batch"],
        }
        for name, tail in (("a", ""), ("b", "!"))
    ]
    program = {
        "variables": {"n": "1"},
        "texts": ["shared "],
        "transforms": [
            {
                "op": "replace",
                "inputs": [[{"type": "variable", "name": "a.out"}]],
                "old": "1 ",
                "new": "one, ",
                "output": "named",
            }
        ],
        "calls": calls,
        "concurrency": {"batch": 1},
    }
    opened = http.post("/v1/sessions", json={"program": program}).json()
    path = f"/v1/sessions/{opened['id']}"
    assert (opened["running"], opened["queued"]) == (1, 1)
    release.set()
    assert http.get(f"{path}/variables/named").json()["value"] == "one, derahs"
    assert http.get(f"{path}/variables/b.out").json()["value"] == "!1 derahs"
    assert http.post(f"{path}/calls", json=chat("shared 1!")).headers[CLAIMED_HEADER] == "true"
    assert http.delete(path).json()["claimed"] == 1
    scripted.held.clear()


def test_variables_are_set_and_read(http: httpx.Client) -> None:
    program = Program(variables={"x": None}, calls=[call("a", "<{x}>")]).model_dump()
    path = f"/v1/sessions/{http.post('/v1/sessions', json={'program': program}).json()['id']}"
    assert http.get(f"{path}/variables/a.out", params={"timeout": 0.01}).status_code == 504
    assert http.put(f"{path}/variables/x", json={"value": "12"}).status_code == 200
    assert http.get(f"{path}/variables/a.out").json()["value"] == ">21<"
    assert http.put(f"{path}/variables/x", json={"value": "13"}).status_code == 409
    assert http.get(f"{path}/variables/none").status_code == 404
    http.delete(path)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_call(
    url: str, http: httpx.Client, scripted: ScriptedEngine, stream: bool
) -> None:
    scripted.hold("leaving")
    path = f"{url}/v1/chat/completions"
    if stream:
        with httpx.stream("POST", path, json=chat("leaving", stream=True)) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert scripted.running == 1
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(path, json=chat("leaving"), timeout=0.3)
    assert eventually(lambda: scripted.running == 0)
    assert http.get("/v1/stats").json()["running"] == 0


def test_the_plan_of_a_client_that_leaves_and_is_silent_ends(
    url: str, http: httpx.Client, scripted: ScriptedEngine
) -> None:
    scripted.hold("1:abc")
    scripted.hold("2:xyz")
    session = http.post("/v1/sessions", json={"program": PROGRAM, "grace": 1}).json()["id"]
    path = f"{url}/v1/sessions/{session}/calls"
    with httpx.stream("POST", path, json=chat("1:abc", stream=True)) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert scripted.running == 2
    assert eventually(lambda: scripted.running == 0, timeout=15)
    assert http.get(f"/v1/sessions/{session}").json()["cancelled"] == 3
    scripted.held.clear()


def test_openapi_describes_the_routes(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/sessions", "/v1/chat/completions", "/v1/models", "/health"} <= set(paths)


def test_a_shutdown_ends_what_outlasts_its_grace() -> None:
    engine = ScriptedEngine()
    engine.hold("long")
    failures: list[object] = []

    def read(url: str) -> None:
        try:
            failures.append(httpx.post(url, json=chat("long"), timeout=30).is_server_error)
        except httpx.HTTPError as error:
            failures.append(error)

    with serving(engine, grace=1) as base:
        reader = threading.Thread(target=read, args=(f"{base}/v1/chat/completions",))
        reader.start()
        assert eventually(lambda: engine.running == 1)
    reader.join(timeout=10)
    assert engine.running == 0
    assert failures != [False]
    assert len(failures) == 1


def test_a_body_that_grows_over_the_limit_is_refused(http: httpx.Client) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"messages": [{"role": "user", "content": "'
        for _ in range(50):
            yield b"x" * 10_000
        yield b'"}]}'

    headers = {"content-type": "application/json"}
    answer = http.post("/v1/chat/completions", content=body(), headers=headers)
    assert answer.status_code == 413
    assert "100000 bytes" in answer.json()["error"]["message"]


def test_a_body_that_is_not_said_to_be_json_is_told_which_header_is_missing(
    http: httpx.Client,
) -> None:
    answer = http.post("/v1/chat/completions", content=b'{"messages": []}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]
