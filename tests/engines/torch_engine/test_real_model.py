"""Greedy output of the real model equals transformers' generate, whatever the engine is put through.

A difference is allowed only where the two best logits are less than 1e-3 apart; it is printed.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import validate

from parrot_backend.engines.base import Delta, GenerationRequest, Grammar, Sampling
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.choose.constraints import Grammars
from parrot_backend.engines.torch_engine.choose.vocabulary import Vocabulary
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.wire.messages import ChatMessage
from tests.engines.torch_engine.many_prompts import many_prompts

pytestmark = pytest.mark.model
COUNT = 10

ARTICLE = (
    "The grey parrot is a medium-sized bird of the rainforests of Central Africa. It lives in flocks "
    "that can number thousands of birds, which gather at dusk in tall trees. It eats nuts, fruit and "
    "leaves, and it is known for its ability to imitate speech and other sounds. Trade and the loss "
    "of forests have made it rare; since 2016 its export is forbidden by international law. "
)
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain why the sky is blue to a child.",
    "Translate 'good morning' into Spanish.",
    "List three prime numbers.",
    "¿Cuál es la capital de España?",
    "日本の首都はどこですか？",
    "Что такое фотосинтез?",
    "What does 🦜 mean?",
    "Write a Python function that reverses a string.",
    "Hi",
]
RAW = [
    "Once upon a time",
    "The quick brown fox jumps over the lazy dog. " * 55,
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "SELECT name, count(*) FROM users WHERE",
    '{"name": "parrot", "colour": "grey", "age":',
    "1, 2, 3, 5, 8, 13,",
    "Liberté, égalité,",
    "αβγδε ζηθικ",
    "🦜🌴🦜🌴",
    "\n\n\n",
    "A",
    "<html>\n<body>\n<h1>",
    "Dear Sir or Madam,\n\nI am writing to",
]
SHARED = [
    "Summarize the text in one sentence.",
    "What does the bird eat?",
    "Where does it live?",
    "Why is it rare?",
    "Since when is its export forbidden?",
    "Write a title for the text.",
    "Is it a good pet?",
    "How large are the flocks?",
]


@pytest.fixture(scope="module")
def loaded(model_path: str) -> LoadedModel:
    return load_model(model_path)


@pytest.fixture(scope="module")
def prompts(loaded: LoadedModel) -> list[list[int]]:
    """32 prompts: chats, raw text, and questions that share an article of some 100 tokens."""
    tokenizer = loaded.tokenizer

    def chat(*messages: tuple[str, str]) -> list[int]:
        rendered = tokenizer.render(
            [{"role": role, "content": content} for role, content in messages], None
        )
        return tokenizer.encode(rendered, add_special_tokens=False)

    chats = [chat(("user", question)) for question in QUESTIONS]
    shared = [chat(("system", "Be brief."), ("user", ARTICLE + question)) for question in SHARED]
    return chats + [list(tokenizer.encode(text)) for text in RAW] + shared


@pytest.fixture(scope="module")
def reference(model_path: str, make_reference: Callable[[str], Any]) -> Any:
    return make_reference(model_path)


def test_there_are_enough_prompts(prompts: list[list[int]]) -> None:
    assert len({tuple(prompt) for prompt in prompts}) >= 30
    assert min(map(len, prompts)) == 1
    assert max(map(len, prompts)) > 512


def greedy(count: int = COUNT) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


def check(
    reference: Any, loaded: LoadedModel, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    """They are generate's, and none goes on behind an end."""
    assert all(loaded.end_tokens.isdisjoint(answer[:-1]) for answer in answers)
    reference.check_forced(list(zip(prompts, answers, strict=True)))


def is_whole(loaded: LoadedModel, answer: list[int]) -> bool:
    return len(answer) == COUNT or answer[-1] in loaded.end_tokens


def test_alone(
    make_stepper: Callable[..., Any],
    loaded: LoadedModel,
    prompts: list[list[int]],
    reference: Any,
) -> None:
    """One at a time; a tenant each, so that nothing is shared."""
    stepper = make_stepper(loaded=loaded)
    answers = []
    for number, prompt in enumerate(prompts):
        client = stepper.add(prompt, greedy(), tenant=str(number))
        stepper.run()
        assert client.last.cached_tokens == 0
        assert is_whole(loaded, client.tokens)
        answers.append(client.tokens)
    check(reference, loaded, prompts, answers)


def test_all_at_once_with_shared_prefixes(
    make_stepper: Callable[..., Any],
    loaded: LoadedModel,
    prompts: list[list[int]],
    reference: Any,
) -> None:
    stepper = make_stepper(loaded=loaded, prefill_budget=100)
    clients = [stepper.add(prompt, greedy()) for prompt in prompts]
    stepper.run()
    check(reference, loaded, prompts, [client.tokens for client in clients])
    for client in clients:
        assert is_whole(loaded, client.tokens)
        decoded = loaded.tokenizer.decode(client.tokens, skip_special_tokens=True)
        assert client.text == decoded
    assert [client.last.cached_tokens >= 90 for client in clients[-len(SHARED) :]] == (
        [False] + [True] * (len(SHARED) - 1)
    )


def test_short_of_memory(
    make_stepper: Callable[..., Any],
    loaded: LoadedModel,
    prompts: list[list[int]],
    reference: Any,
) -> None:
    """Room for two or three sequences; some neighbours leave."""
    stepper = make_stepper(loaded=loaded, slots=240, prefill_budget=64)
    fitting = [prompt for prompt in prompts if len(prompt) < 200]
    clients = [stepper.add(prompt, greedy(), priority=i % 3) for i, prompt in enumerate(fitting)]
    leaving = clients[::6]
    for client in itertools.cycle(leaving):
        stepper.step()
        if len(client.tokens) > 2 and not client.sequence.finished:
            stepper.cancel(client)
        if not stepper.stepper.busy:
            break
    assert stepper.stepper.stats.tokens_evicted > 0
    assert stepper.preemptions > 0
    assert len(clients) > 30
    check(reference, loaded, fitting, [client.tokens for client in clients])
    whole = [is_whole(loaded, client.tokens) for client in clients]
    assert whole == [client.last.finish_reason is not None for client in clients]
    assert not all(whole)


@pytest.mark.timeout(900)
def test_two_hundred_prompts_under_everything_at_once(
    make_stepper: Callable[..., Any], loaded: LoadedModel, reference: Any
) -> None:
    """With and without drafts in the same batches, in little memory; neighbours come and leave."""
    prompts = many_prompts([loaded.tokenizer.encode(text) for text in (ARTICLE, *QUESTIONS, *RAW)])
    lengths = [len(prompt) for prompt in prompts]
    assert (len(prompts), min(lengths), max(lengths)) == (200, 1, 600)
    stepper = make_stepper(loaded=loaded, slots=700, max_batch=8, prefill_budget=128)
    clients, preempted = run_disturbed(stepper, prompts)
    ends = loaded.end_tokens
    for client in clients:
        assert client.last.finish_reason == ("stop" if client.tokens[-1] in ends else "length")
    answers = {(tuple(client.prompt), tuple(client.tokens)) for client in clients}
    ties = reference.check_forced([(list(prompt), list(answer)) for prompt, answer in answers])
    assert len(answers) <= len(set(map(tuple, prompts))) + ties
    stats = stepper.stepper.stats
    print(f"{len(clients)} answers, {ties} ties, {preempted} preempted, {stats}")
    assert stepper.preemptions > 0, "also by themselves"
    assert preempted > 50
    assert min(stats.tokens_evicted, stats.tokens_shared) > 1000
    assert stats.tokens_accepted > 100


def run_disturbed(stepper: Any, prompts: list[list[int]]) -> tuple[list[Any], int]:
    """Run each prompt with and without drafts.

    They come a few at a time and with different priorities; every few steps one that runs is
    preempted, and a neighbour is cancelled.

    Returns:
        The prompts' clients, and how often one was preempted.
    """
    chance = random.Random(7)
    coming = [(prompt, drafts) for prompt in prompts for drafts in (True, False)]
    clients: list[Any] = []
    neighbours: list[Any] = []
    preempted = 0
    while coming or stepper.stepper.busy:
        while coming and stepper.stepper.stats.waiting < 16:
            prompt, drafts = coming.pop()
            priority = chance.randrange(3)
            clients.append(stepper.add(prompt, greedy(8), priority, drafts=drafts))
            if len(clients) % 10 == 0:
                neighbours.append(stepper.add([*prompt, 7], greedy(8), 2))
        stepper.step()
        if stepper.steps % 3 == 0 and (running := stepper.stepper._scheduler.running):
            stepper.stepper._scheduler._preempt(chance.choice(running))
            preempted += 1
        if stepper.steps % 10 == 0 and neighbours:
            stepper.cancel(neighbours.pop(0))
    return clients, preempted


@pytest.mark.parametrize("seed", [None, 3], ids=["greedy", "seeded"])
def test_a_text_that_is_written_again_takes_few_steps(
    make_stepper: Callable[..., Any], loaded: LoadedModel, seed: int | None
) -> None:
    prompt = loaded.tokenizer.encode(ARTICLE + ARTICLE[:80])
    sampling = Sampling(temperature=0 if seed is None else 0.5, seed=seed, max_tokens=24)
    answers, steps = [], []
    for drafts in (False, True):
        stepper = make_stepper(loaded=loaded)
        client = stepper.add(prompt, sampling, drafts=drafts)
        stepper.run()
        answers.append((client.tokens, client.text))
        steps.append(stepper.steps)
    assert answers[0] == answers[1]
    assert stepper.stepper.stats.tokens_accepted > 12
    assert steps[1] <= steps[0] / 2


def test_forced_tokens_take_no_steps(
    make_stepper: Callable[..., Any], loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["grey", "green"]}, "endangered": {"type": "boolean"}},
        "required": ["colour", "endangered"],
        "additionalProperties": False,
    }
    grammars = Grammars(Vocabulary(loaded.tokenizer, loaded.forward.vocabulary, loaded.end_tokens))
    answers = []
    for logprobs in (None, 1):
        stepper = make_stepper(loaded=loaded)
        client = stepper.add(
            prompts[-1],
            Sampling(temperature=0, logprobs=logprobs),
            constraint=grammars.compile(Grammar("json_schema", json.dumps(schema), "x")),
        )
        stepper.run()
        validate(json.loads(client.text), schema)
        answers.append(client.tokens)
        assert stepper.steps < len(client.tokens) / 2
    assert answers[0] == answers[1]
    grammars.close()


async def test_through_the_engine_with_cancelled_neighbours(
    loaded: LoadedModel, prompts: list[list[int]], reference: Any
) -> None:
    engine = TorchEngine.start(loaded, "real", kv_memory=2**27)

    async def generate(prompt: list[int], leave_after: int) -> list[int]:
        stream = engine.generate(GenerationRequest(prompt, greedy()))
        deltas: list[Delta] = []
        async for delta in stream:
            deltas.append(delta)
            if len(deltas) == leave_after:
                await stream.aclose()
        return [token for delta in deltas for token in delta.tokens]

    leaving = [4 if i % 4 == 0 else COUNT for i in range(len(prompts))]
    answers = await asyncio.gather(*map(generate, prompts, leaving))
    check(reference, loaded, prompts, answers)
    await engine.aclose()
    assert engine.stats().kv_used_tokens == 0


async def test_answers_are_the_same_whether_their_prompts_were_prefilled_ahead(
    loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    answers = []
    for prefill_ahead in (True, False):
        engine = TorchEngine.start(loaded, "real", kv_memory=2**27, prefill_ahead=prefill_ahead)
        forget = [engine.expect(prompt[:-4]) for prompt in prompts[-len(SHARED) :]]
        for _ in range(6000 if prefill_ahead else 0):
            if engine.stats().tokens_prefilled_ahead >= len(prompts[-1]) - 4:
                break
            await asyncio.sleep(0.01)
        answers.append([])
        for prompt in prompts[-len(SHARED) :]:
            stream = engine.generate(GenerationRequest(prompt, greedy()))
            answers[-1].append([token async for delta in stream for token in delta.tokens])
        for act in forget:
            act()
        stats = engine.stats()
        assert (stats.tokens_ahead_used > 0) == prefill_ahead
        await engine.aclose()
    assert answers[0] == answers[1]


async def test_a_top_p_that_is_nothing_in_float32_leaves_the_best_token(
    loaded: LoadedModel, prompts: list[list[int]]
) -> None:
    """A token beyond the vocabulary, which a kernel would read, was the end of the process."""
    engine = TorchEngine.start(loaded, "real", kv_memory=2**25)

    async def answer(sampling: Sampling) -> list[int]:
        stream = engine.generate(GenerationRequest(prompts[-1], sampling))
        return [token async for delta in stream for token in delta.tokens]

    for smallest in (1e-300, 5e-324):
        drawn = Sampling(temperature=2.0, top_p=smallest, max_tokens=COUNT)
        assert await answer(drawn) == await answer(greedy())
    await engine.aclose()


def test_encode_is_the_models_own_template(loaded: LoadedModel) -> None:
    engine = TorchEngine.start(loaded, "real", kv_memory=2**24)
    tokens = engine.encode([ChatMessage(role="user", content="hi")])
    text = loaded.tokenizer.decode(tokens)
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    asyncio.run(engine.aclose())
