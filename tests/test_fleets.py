"""Which engines a server takes, and what becomes of those that can't be had."""

import logging

import pytest

from parrot_backend.endpoints.making import Making
from parrot_backend.endpoints.specs import EngineSpec, spec_of
from parrot_backend.endpoints.vllm.finding import Machine
from parrot_backend.fleets import (
    engine_by_itself,
    members_of,
    members_of_body,
    tell_unknown_tenants,
)
from parrot_backend.wire.errors import InvalidRequestError

URL = "http://localhost:8000"
WITHOUT = EngineSpec(engine=URL, name="without", api_key_env="NO_SUCH_KEY")


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "parrot_backend")


def test_with_cuda_and_vllm_it_is_vllm(caplog):
    spec = engine_by_itself("org/m", Machine(cuda=True, vllm="/bin/vllm"), ["--dtype", "half"])
    assert (spec.engine, spec.arguments) == ("vllm:org/m", ("--dtype", "half"))
    assert "this machine has CUDA and vLLM: serving org/m with vLLM" in caplog.text
    assert "--engine parrot:org/m takes Parrot's own engine" in caplog.text


def test_with_cuda_and_no_vllm_it_is_ours_and_says_what_to_install(caplog):
    spec = engine_by_itself(None, Machine(cuda=True, vllm=None))
    assert spec.engine == "parrot:smollm2-135m-instruct"
    assert "pip install 'parrot-integrations[vllm]'" in caplog.text
    assert "going on with Parrot's own engine" in caplog.text


@pytest.mark.parametrize("vllm", ["/bin/vllm", None])
def test_without_cuda_it_is_ours_without_a_word(caplog, vllm):
    assert engine_by_itself("m", Machine(cuda=False, vllm=vllm)).engine == "parrot:m"
    assert not caplog.records


def test_members_are_what_the_specs_say():
    specs = [
        spec_of("parrot:m"),
        EngineSpec(engine=URL, name="cloud", models=("a", "b"), weight=2, slots=3, tenants={"t"}),
        EngineSpec(engine=URL, aliases=("small",), serves="llama3"),
    ]
    ours, a, b, other = members_of(specs, Making())
    assert [m.name for m in (ours, a, b, other)] == [
        "parrot",
        "cloud:a",
        "cloud:b",
        "localhost:8000",
    ]
    assert (a.weight, a.slots, a.tenants) == (2, 3, frozenset({"t"}))
    assert (other.aliases, other.model, a.model) == (("small",), "llama3", None)
    assert a.spec != b.spec
    again = members_of(specs, Making())
    assert [m.spec for m in again] == [m.spec for m in (ours, a, b, other)]


def test_a_member_is_known_again_by_what_its_endpoint_is_made_of(tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-1")
    spec = EngineSpec(engine=URL, name="e", api_key_file=key, slots=4)

    def again(**changes):
        (member,) = members_of([spec.model_copy(update=changes)], Making())
        return member

    first = again()
    said = {"aliases": ("a",), "weight": 2.0, "tenants": frozenset({"t"})}
    assert first.is_made_as(again(**said))
    assert not first.is_made_as(again(slots=2))
    assert not first.is_made_as(again(engine="http://localhost:8001"))
    key.write_text("sk-2")
    assert not first.is_made_as(again())
    assert "sk-" not in repr(first)
    ours = members_of([spec_of("parrot:m")], Making())[0]
    assert (ours.exclusive, ours.make, first.exclusive) == (True, None, False)
    assert first.make() is not first.endpoint


def test_of_several_those_that_cannot_be_made_are_told_and_left_out(caplog):
    (member,) = members_of([WITHOUT, spec_of("parrot:m")], Making())
    assert member.name == "parrot"
    assert caplog.messages == [
        "engine 'without': api_key_env: the variable NO_SUCH_KEY is not set or empty"
    ]


def test_where_none_can_be_made_all_is_said(caplog):
    with pytest.raises(
        InvalidRequestError, match="'b': api_key_env: the variable NO_SUCH_KEY is not set"
    ):
        members_of([WITHOUT, WITHOUT.model_copy(update={"name": "b"})], Making())
    assert len(caplog.messages) == 1


def test_tenants_without_a_key_are_told(caplog):
    specs = [EngineSpec(engine=URL, tenants={"bob", "ann"}), spec_of("parrot:m")]
    tell_unknown_tenants(specs, ["ann", "bob"])
    assert not caplog.records
    tell_unknown_tenants(specs, ["ann"])
    tell_unknown_tenants([specs[0].model_copy(update={"name": "one"})])
    assert caplog.messages == [
        f"engine '{URL}' is for tenants of whom --api-keys has no key: bob",
        "engine 'one' is for tenants of whom --api-keys has no key: ann, bob",
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "engine: it is missing"),
        ({"engine": "vllm:m", "arguments": ["--x"]}, "arguments: not over HTTP; put such an"),
        ({"engine": URL, "api_key_file": "/etc/shadow"}, "api_key_file: not over HTTP; put such an"),
        ({"engine": URL, "api_key_env": "PARROT_ENGINE_API_KEY"}, "api_key_env: not over HTTP"),
        ({"engine": URL, "models": ["a/b", "a-b"]}, "two engines would be named 'localhost:8000:a-b'"),
    ],
)  # fmt: skip
def test_over_http_nothing_is_run_or_sent_that_is_this_machines(body, said, monkeypatch):
    monkeypatch.setenv("PARROT_ENGINE_API_KEY", "sk-1")
    with pytest.raises(InvalidRequestError, match=said):
        members_of_body(body, Making())


def test_over_http_an_engine_is_one_or_several_members():
    body = {"engine": URL, "models": ["a", "b"]}
    assert [m.name for m in members_of_body(body, Making())] == [
        "localhost:8000:a",
        "localhost:8000:b",
    ]
