"""Engines over HTTP: what operators see and change, and what everybody else sees of it."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import openai
import pytest

from parrot_backend.api.access.keys import Keys
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import ModelCard
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import EngineError, InvalidRequestError
from tests.doubles import ScriptedEngine
from tests.servers import eventually, serving_fleet

ANN, BOB = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
OPERATOR = {"authorization": "Bearer o"}


class RefusingEndpoint(LocalEndpoint):
    """It can't be started."""

    async def start(self) -> None:
        raise EngineError("nobody listens at http://127.0.0.1:1: start it, or name another")


def an_engine(model: str, mark: str = "") -> ScriptedEngine:
    """It answers with its prompt, and a mark of its own."""
    engine = ScriptedEngine(lambda prompt: prompt + mark)
    engine.model = ModelCard(model, 1000)
    return engine


def make_member(body: dict[str, Any]) -> list[Member]:
    """As the command line's, of fewer kinds."""
    if unknown := body.keys() - {"name", "models", "aliases"}:
        raise InvalidRequestError(f"field '{min(unknown)}' is not known", param=min(unknown))
    kind = RefusingEndpoint if body["name"] == "refused" else LocalEndpoint
    return [
        Member(f"{body['name']}{at or ''}", kind(an_engine(model)), tuple(body.get("aliases", ())))
        for at, model in enumerate(body["models"])
    ]


@pytest.fixture
def engines() -> dict[str, ScriptedEngine]:
    return {"one": an_engine("small", "!"), "two": an_engine("large", "?")}


@pytest.fixture
def url(engines: dict[str, ScriptedEngine]) -> Iterator[str]:
    named = {"a": Tenant("ann", False), "b": Tenant("bob", False), "o": Tenant("ops")}
    keys = Keys((sha256(key.encode()).digest(), tenant) for key, tenant in named.items())
    fleet = Fleet(
        Member("one", LocalEndpoint(engines["one"]), ("gpt",)),
        Member("two", LocalEndpoint(engines["two"]), tenants=frozenset({"ann", "ops"})),
    )
    limits = Limits(drain_seconds=0.2)
    with serving_fleet(fleet, keys=keys, limits=limits, make_member=make_member) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=OPERATOR, timeout=20) as client:
        yield client


def ask(http: httpx.Client, model: str | None, **options: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    return http.post("/v1/chat/completions", json=body, **options)


def text_of(answer: httpx.Response) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def states(http: httpx.Client) -> dict[str, str]:
    told = http.get("/v1/engines").json()["data"]
    return {engine["name"]: engine["state"] for engine in told}


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert "\n" not in error["message"]
    return answer.status_code, error["code"], error["message"]


def test_models_are_asked_for_by_name_alias_or_not_at_all(http: httpx.Client) -> None:
    told = {model: text_of(ask(http, model)) for model in (None, "small", "gpt", "large")}
    assert told == {None: "Hi!", "small": "Hi!", "gpt": "Hi!", "large": "Hi?"}
    assert ask(http, "gpt").json()["model"] == "small"


def test_models_and_aliases_are_listed_that_one_may_use(http: httpx.Client, url: str) -> None:
    told = {model["id"]: model["root"] for model in http.get("/v1/models").json()["data"]}
    assert told == {"small": "small", "large": "large", "gpt": "small"}
    assert http.get("/v1/models/gpt").json()["root"] == "small"
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="b", max_retries=0)
    assert [model.id for model in client.models.list()] == ["small", "gpt"]


def test_what_one_may_not_use_is_as_unknown_as_what_there_is_not(http: httpx.Client) -> None:
    assert ask(http, "large", headers=ANN).status_code == 200
    for model in ("large", "none"):
        status, code, message = error_of(ask(http, model, headers=BOB))
        assert (status, code) == (404, "model_not_found")
        assert "this server serves 'small', 'gpt'" in message
        assert error_of(http.get(f"/v1/models/{model}", headers=BOB))[1] == "model_not_found"


def test_who_may_not_use_a_model_can_not_plan_or_tokenize_with_it(http: httpx.Client) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    call = {"id": "c", "messages": [message], "output": "o", "model": "large"}
    opening = {"program": {"calls": [call]}}
    assert http.post("/v1/sessions", json=opening, headers=ANN).status_code == 200
    answer = http.post("/v1/sessions", json=opening, headers=BOB)
    assert error_of(answer)[:2] == (404, "model_not_found")
    answer = http.post("/v1/tokenize", json={"prompt": "a", "model": "large"}, headers=BOB)
    assert error_of(answer)[:2] == (404, "model_not_found")
    answer = http.post("/v1/tokenize", json={"prompt": "a", "model": "large"}, headers=ANN)
    assert answer.json()["tokens"] == [ord("a")]


def test_a_graph_tells_which_engine_ran_what(http: httpx.Client) -> None:
    calls = [
        {
            "id": model,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "output": f"{model}.out",
            "model": model,
        }
        for model in ("small", "large")
    ]
    path = (
        f"/v1/sessions/{http.post('/v1/sessions', json={'program': {'calls': calls}}).json()['id']}"
    )
    for model in ("small", "large"):
        http.get(f"{path}/variables/{model}.out").raise_for_status()
    told = http.get(f"{path}/graph").json()["calls"]
    assert {call["id"]: call["engine"] for call in told} == {"small": "one", "large": "two"}
    assert [call["attempts"] for call in told] == [[], []]


def test_operators_see_the_engines(http: httpx.Client) -> None:
    one, two = http.get("/v1/engines").json()["data"]
    assert one == {
        "name": "one",
        "state": "ready",
        "model": "small",
        "aliases": ["gpt"],
        "engine": "parrot",
        "slots": 10_000,
        "running": 0,
        "weight": 1.0,
        "tenants": None,
        "reason": None,
    }
    assert two["tenants"] == ["ann", "ops"]


def test_stats_are_told_together_and_of_each_engine(
    http: httpx.Client, engines: dict[str, ScriptedEngine]
) -> None:
    engines["one"].running, engines["two"].running = 3, 4
    stats = http.get("/v1/stats").json()
    assert stats["running"] == 7
    assert {name: each["running"] for name, each in stats["engines"].items()} == {
        "one": 3,
        "two": 4,
    }
    engines["one"].running = engines["two"].running = 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/engines"),
        ("POST", "/v1/engines"),
        ("POST", "/v1/engines/one/drain"),
        ("DELETE", "/v1/engines/one"),
        ("GET", "/v1/stats"),
    ],
)
def test_nobody_else_sees_or_changes_them(http: httpx.Client, method: str, path: str) -> None:
    body = {"name": "new", "models": ["new"]} if (method, path) == ("POST", "/v1/engines") else None
    answer = http.request(method, path, headers=ANN, json=body)
    assert error_of(answer)[:2] == (403, "forbidden")
    assert states(http) == {"one": "ready", "two": "ready"}


def test_an_engine_is_added_drained_and_removed(http: httpx.Client) -> None:
    added = http.post("/v1/engines", json={"name": "new", "models": ["tiny"], "aliases": ["t"]})
    assert added.status_code == 201
    assert [engine["model"] for engine in added.json()["data"]] == ["tiny"]
    assert text_of(ask(http, "t")) == "Hi"
    assert http.post("/v1/engines/new/drain").json()["state"] == "draining"
    assert states(http)["new"] == "draining"
    assert http.delete("/v1/engines/new").json()["state"] == "dead"
    assert states(http) == {"one": "ready", "two": "ready"}
    assert error_of(ask(http, "t"))[:2] == (404, "model_not_found")


def test_what_an_engine_runs_has_time_until_it_is_closed(
    http: httpx.Client, url: str, engines: dict[str, ScriptedEngine]
) -> None:
    """Nobody else serves its model: what has not ended by then fails, and the service goes on."""
    engines["two"].hold("Hi")
    with http.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "large", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        httpx.delete(f"{url}/v1/engines/two", headers=OPERATOR).raise_for_status()
        rest = "".join(lines)
    assert "the last engine that served the call's model was removed" in rest
    assert text_of(ask(http, None)) == "Hi!"


def test_of_one_engine_come_all_models_or_none(http: httpx.Client) -> None:
    answer = http.post("/v1/engines", json={"name": "new", "models": ["a", "b"]})
    assert [engine["name"] for engine in answer.json()["data"]] == ["new", "new1"]
    answer = http.post("/v1/engines", json={"name": "x", "models": ["c", "d"], "aliases": ["y"]})
    assert error_of(answer)[:2] == (409, "alias_taken")
    assert set(states(http)) == {"one", "two", "new", "new1"}


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"name": "one", "models": ["m"]}, 409, "there is an engine 'one' already"),
        ({"name": "n", "models": ["m"], "aliases": ["gpt"]}, 409, "an alias of engine 'one'"),
        ({"name": "n", "models": ["gpt"]}, 409, "an alias of engine 'one'"),
        ({"name": "refused", "models": ["m"]}, 500, "nobody listens at http://127.0.0.1:1"),
        ({"name": "n", "url": "x"}, 400, "field 'url' is not known"),
        ([], 400, ""),
        ("vllm", 400, ""),
    ],
)
def test_what_can_not_be_added_is_told_in_one_line_and_the_service_runs_on(
    http: httpx.Client, body: Any, status: int, told: str
) -> None:
    answer = http.post("/v1/engines", json=body)
    assert error_of(answer)[0] == status
    assert told in error_of(answer)[2]
    assert states(http) == {"one": "ready", "two": "ready"}
    assert text_of(ask(http, None)) == "Hi!"


@pytest.mark.parametrize(("method", "path"), [("DELETE", "x"), ("POST", "x/drain")])
def test_an_engine_that_there_is_not(http: httpx.Client, method: str, path: str) -> None:
    status, code, message = error_of(http.request(method, f"/v1/engines/{path}"))
    assert (status, code) == (404, "engine_not_found")
    assert "there is no engine 'x'" in message


def test_the_service_is_ready_as_long_as_one_engine_is(http: httpx.Client, url: str) -> None:
    ready = http.get("/ready").json()
    assert ready == {
        "status": "ready",
        "model": "small",
        "engines": {"one": "ready", "two": "ready"},
    }
    http.post("/v1/engines/one/drain")
    answer = http.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["engines"] == {"one": "draining", "two": "ready"}
    http.post("/v1/engines/two/drain")
    answer = httpx.get(f"{url}/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "draining")
    http.delete("/v1/engines/one")
    http.delete("/v1/engines/two")
    answer = httpx.get(f"{url}/ready")
    assert answer.status_code == 503
    assert answer.json() == {"status": "dead", "model": None, "engines": {}}
    assert error_of(ask(http, None))[2].startswith("no model is served here")


def test_the_engines_names_and_models_are_not_for_everybody(http: httpx.Client, url: str) -> None:
    """A load balancer has no key, and has to know no more than whether it is ready."""
    http.delete("/v1/engines/one")
    told = {"status": "ready", "engines": {"1": "ready"}}
    assert httpx.get(f"{url}/ready").json() == {**told, "model": None}
    wrong = {"authorization": "Bearer wrong"}
    assert httpx.get(f"{url}/ready", headers=wrong).json() == {**told, "model": None}
    assert http.get("/ready", headers=ANN).json() == {**told, "model": "large"}
    assert http.get("/ready", headers=BOB).json() == {**told, "model": None}
    assert http.get("/ready").json()["engines"] == {"two": "ready"}


def test_where_nothing_can_be_added_that_is_told() -> None:
    fleet = Fleet(Member("one", LocalEndpoint(an_engine("small"))))
    with serving_fleet(fleet) as url:
        answer = httpx.post(f"{url}/v1/engines", json={"name": "n"})
    assert error_of(answer)[:2] == (409, "engines_fixed")


def test_a_call_whose_engine_dies_is_answered_by_another() -> None:
    """And the graph tells what it cost."""
    dying, other = an_engine("m"), an_engine("m")
    first = LocalEndpoint(dying)
    fleet = Fleet(Member("first", first))
    dying.hold("Hi")
    with (
        serving_fleet(
            fleet,
            limits=Limits(drain_seconds=0.1),
            make_member=lambda _: [Member("second", LocalEndpoint(other))],
        ) as url,
        httpx.Client(base_url=url, timeout=20) as http,
    ):
        message = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
        program = {"calls": [{"id": "c", "messages": [message], "output": "o", "temperature": 0}]}
        session = http.post("/v1/sessions", json={"program": program}).json()["id"]
        assert eventually(lambda: dying.running == 1)
        http.post("/v1/engines", json={}).raise_for_status()
        http.delete("/v1/engines/first").raise_for_status()
        value = http.get(f"/v1/sessions/{session}/variables/o", params={"timeout": 10}).json()
        (call,) = http.get(f"/v1/sessions/{session}/graph").json()["calls"]
    assert value["value"] == "Hi"
    assert call["engine"] == "second"
    assert [attempt["engine"] for attempt in call["attempts"]] == ["first"]
