"""Constrained generation with a tiny random model, which alone would write nothing but noise."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from jsonschema import validate

from parrot_backend.engines.base import GenerationRequest, Grammar, Sampling
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.choose.constraints import Grammars, allowed_tokens
from parrot_backend.engines.torch_engine.choose.vocabulary import Vocabulary
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.wire.errors import InvalidRequestError, UnavailableError

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kinds": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 999},
    },
    "required": ["name", "kinds", "age"],
    "additionalProperties": False,
}


def schema(source: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(source), "response_format")


def regex(source: str) -> Grammar:
    return Grammar("regex", source, "structured_outputs")


def lark(source: str) -> Grammar:
    return Grammar("lark", source, "structured_outputs")


@pytest.fixture
async def engine(tiny: LoadedModel) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine.start(tiny, "tiny", kv_memory=10**6)
    yield engine
    await engine.aclose()


@pytest.fixture
def grammars(tiny: LoadedModel) -> Grammars:
    return Grammars(Vocabulary(tiny.tokenizer, tiny.forward.vocabulary, tiny.end_tokens))


async def answer(
    engine: TorchEngine, grammar: Grammar | None, prompt: list[int], **sampling: Any
) -> tuple[str, str]:
    """The text and how it ended."""
    request = GenerationRequest(prompt, Sampling(grammar=grammar, **sampling))
    deltas = [delta async for delta in engine.generate(request)]
    return "".join(delta.text for delta in deltas), str(deltas[-1].finish_reason)


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 2, "seed": 3}])
async def test_a_batch_of_answers_each_follows_its_own_grammar(
    engine: TorchEngine, sampling: dict[str, Any]
) -> None:
    free = Sampling(temperature=0, max_tokens=40)
    alone = [d.tokens async for d in engine.generate(GenerationRequest([9, 8], free))]
    beside = asyncio.create_task(answer(engine, None, [9, 8], temperature=0, max_tokens=40))
    answers = await asyncio.gather(
        *(answer(engine, schema(SCHEMA), [5 + i, 6], **sampling) for i in range(6)),
        answer(engine, regex(r"[a-c]{3,6}-\d+é"), [5, 6, 7], logit_bias={31: 9}, **sampling),
        answer(engine, lark('start: "[" start "]" | "x"'), [7], max_tokens=200, **sampling),
    )
    for text, end in answers[:6]:
        assert end == "stop"
        validate(json.loads(text), SCHEMA)
    assert re.fullmatch(r"[a-c]{3,6}-\d+é", answers[6][0]) or answers[6][1] == "length"
    nested, end = answers[7]
    assert nested.count("[") == nested.count("]") or end == "length"
    decode = engine._tokenizer.decode
    assert (await beside)[0] == decode([t for tokens in alone for t in tokens])


async def test_where_only_one_text_can_follow_it_comes_at_once(
    engine: TorchEngine,
) -> None:
    request = GenerationRequest([5], Sampling(temperature=0, grammar=lark('start: "yes"')))
    deltas = [delta async for delta in engine.generate(request)]
    assert [(delta.text, len(delta.tokens)) for delta in deltas] == [("yes", 3)]
    assert deltas[-1].finish_reason == "stop"


async def test_where_more_could_follow_the_model_decides(engine: TorchEngine) -> None:
    stops, _ = await answer(engine, regex("a+"), [5], temperature=0, logit_bias={0: 100})
    assert stops == "a"
    goes_on = await answer(
        engine, regex("a+"), [5], temperature=0, logit_bias={0: -100}, max_tokens=9
    )
    assert goes_on == ("a" * 9, "length")


async def test_a_json_object_is_one(engine: TorchEngine) -> None:
    text, end = await answer(
        engine, schema({"type": "object"}), [5], temperature=0, logit_bias={95: 60}, max_tokens=400
    )
    assert text.startswith("{")
    assert end == "length" or isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (schema({"type": "string", "minLength": 5, "maxLength": 2}), "Unsatisfiable schema"),
        (schema({"type": "strin"}), "Invalid type: strin"),
        (schema({"not": {}}), "Unimplemented keys"),
        (schema({"$ref": "http://example.com/schema"}), "not fetch"),
        (schema({"$ref": "#"}), "no text"),
        (Grammar("json_schema", "{", "response_format"), "EOF"),
        (Grammar("json_schema", "[" * 60_000, "response_format"), "recursion limit"),
        (Grammar("json_schema", " " * 2**19, "response_format"), "524288 characters"),
        (regex("(a"), "unclosed group"),
        (regex("(?=a)b"), "look-around"),
        (regex(r"[^\s\S]"), "no text"),
        (lark("start: nothing"), "unknown name"),
        (lark("start: start"), "no text"),
        (regex("(" * 5000 + "a" + ")" * 5000), "invalid regex"),
    ],
)
async def test_a_grammar_that_cannot_be_used_is_refused_with_the_reason(
    engine: TorchEngine, grammar: Grammar, reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        await answer(engine, grammar, [5], max_tokens=5)
    assert (caught.value.param, caught.value.code) == (grammar.param, "invalid_grammar")
    assert len(caught.value.message) < 500


def chain(step: str, count: int) -> Grammar:
    rules = [f"r{i}: {step} r{i + 1}" for i in range(count)]
    return lark("\n".join(["start: r0", *rules, f'r{count}: "z"']))


async def test_an_engine_that_is_closed_compiles_nothing(tiny: LoadedModel) -> None:
    engine = TorchEngine.start(tiny, "tiny", kv_memory=10**6)
    await engine.aclose()
    with pytest.raises(UnavailableError):
        await answer(engine, regex("a"), [5])


EXPLODING = [
    chain("", 4500),
    chain('"a"', 3500),
    regex(r"(.{0,500}x.{0,500}y){50}"),
    regex(r"((a{1,1000}){1,1000}){1,1000}"),
    regex(r"(a|b)*a(a|b){3000}"),
    lark('start: s{1,5000}\ns: "a"? "a"? "a"?'),
    lark('start: start start | "a" | ""'),
    lark('start: ("a" | "b" | x)* "c"\nx: start x | "a"'),
]


async def test_what_explodes_is_refused_or_bounded_and_the_batch_goes_on(
    engine: TorchEngine,
) -> None:
    endless = {"temperature": 0, "max_tokens": 400, "logit_bias": {0: -100}}
    running = asyncio.create_task(answer(engine, None, [9, 8], **endless))
    outcomes = await asyncio.gather(
        *(answer(engine, g, [5, 6], temperature=2, seed=1, max_tokens=60) for g in EXPLODING),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(error, InvalidRequestError) for error in refused)
    assert (await running)[1] == "length"


def test_a_grammar_over_a_limit_in_the_middle_fails_its_own_request(
    make_stepper: Any, tiny_reference: Any, grammars: Grammars
) -> None:
    stepper = make_stepper()
    good = stepper.add([9, 8, 7, 6], Sampling(temperature=0, max_tokens=12))
    bad = stepper.add([5, 6], Sampling(temperature=0, max_tokens=12))
    bad.sequence.sampler.constraint = constraint = grammars.compile(regex("[a-z]{4}"))
    stepper.step()
    stepper.step()
    assert not constraint.matcher.consume_token(200)
    stepper.run()
    assert isinstance(bad.last, InvalidRequestError)
    assert bad.last.param == "structured_outputs"
    tiny_reference.check(good.prompt, good.tokens, 12)


def test_a_preempted_answer_goes_on_in_its_grammar(make_stepper: Any, grammars: Grammars) -> None:
    stepper = make_stepper(slots=100)
    clients = [stepper.add([3 + n] * 12, Sampling(temperature=0)) for n in range(6)]
    for client in clients:
        client.sequence.sampler.constraint = grammars.compile(regex("[a-z]{20}[0-9]{5}"))
    stepper.run()
    assert stepper.preemptions > 0
    assert all(re.fullmatch("[a-z]{20}[0-9]{5}", client.text) for client in clients)


def test_many_uses_of_a_grammar_do_not_use_it_up(grammars: Grammars) -> None:
    wide = regex("(.{0,40}x.{0,40}y){5}")
    for seed in range(30):
        constraint = grammars.compile(wide)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(30):
            (allowed,) = allowed_tokens([constraint], 258)
            token = torch.multinomial(allowed.float(), 1, generator=generator)
            constraint.accept(int(token))


def test_equal_grammars_are_matched_apart(grammars: Grammars) -> None:
    first, second = (grammars.compile(regex("[ab]c")) for _ in range(2))
    before = allowed_tokens([first, second], 258)
    assert before[0].equal(before[1])
    assert before[0].sum() == 2
    first.accept(int(before[0].nonzero()[0]))
    after = allowed_tokens([first, second], 258)
    assert after[0].sum() == 1
    assert after[1].equal(before[1])
