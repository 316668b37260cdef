"""What one tenant can learn of another's prompts by the time that its own take: nothing.

The attack: a prompt that begins as another one did answers sooner, if what was computed of the other is
used again. So a tenant who guesses what another has asked can try the guess, and look at the clock
(arXiv 2409.20002). A small random model does as well as a real one, and lets us look often enough.
"""

import json
import math
import random
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from transformers import LlamaConfig

from tests.engines.torch_engine.conftest import TINY, save_tiny
from tests.processes import parrot_serve

PROBES = 260
WITHIN_EVERY = 5  # one's own are told apart by far fewer probes than it takes to exclude a leak
PREFIX_TOKENS = 800  # a byte each
TENANTS = ("alice", "bob", "carol")


@dataclass(frozen=True, slots=True)
class Answer:
    """How long its first token took, and how much of the prompt was found."""

    seconds: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant."""

    client: httpx.Client
    key: str

    def ask(self, prompt: str) -> Answer:
        """For one token, which is the first."""
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 1,
            "temperature": 0,
        }
        headers = {"Authorization": f"Bearer {self.key}"}
        begin = time.perf_counter()
        answer = self.client.post("/v1/chat/completions", json=body, headers=headers)
        seconds = time.perf_counter() - begin
        usage = answer.raise_for_status().json()["usage"]
        return Answer(seconds, usage["prompt_tokens_details"]["cached_tokens"])


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Caller]]:
    folder = tmp_path_factory.mktemp("tenants")
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    model = save_tiny(
        LlamaConfig(**TINY | shape | {"max_position_embeddings": 2048}), folder / "model"
    )
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": n, "key": f"key-of-{n}"} for n in TENANTS]}))
    serve = ("--api-keys", str(keys), "--kv-memory", "1GiB", "--model", model)
    with (
        parrot_serve(*serve, PARROT_API_KEY="") as served,
        httpx.Client(base_url=served.url, timeout=60) as client,
    ):
        yield {name: Caller(client, f"key-of-{name}") for name in TENANTS}


def prefix(rng: random.Random) -> str:
    """One that nobody has asked with before; all are equally long."""
    return "".join(rng.choices(string.ascii_lowercase, k=PREFIX_TOKENS))


@dataclass(slots=True)
class Probes:
    """Seconds of prompts whose beginning was asked before, and of fresh ones."""

    known: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)

    def take(self, prober: Caller, known: str, rng: random.Random) -> None:
        """A pair; which of the two comes first is chance, so that neither has an advantage by it."""
        pair = [(self.known, known), (self.fresh, prefix(rng))]
        rng.shuffle(pair)
        for times, text in pair:
            times.append(prober.ask(f"{text} and then?").seconds)

    def auc(self) -> float:
        """How often a known one is faster than a fresh one: 0.5 is chance, 1 always."""
        pairs = [
            (known < fresh) + (known == fresh) / 2 for known in self.known for fresh in self.fresh
        ]
        return sum(pairs) / len(pairs)

    def error(self) -> float:
        """The standard error of `auc`, if it is chance (Mann and Whitney)."""
        known, fresh = len(self.known), len(self.fresh)
        return math.sqrt((known + fresh + 1) / (12 * known * fresh))


@pytest.mark.timeout(900)
def test_time_tells_a_tenant_of_its_own_prompts_and_of_no_others(
    callers: dict[str, Caller],
) -> None:
    rng, across, within = random.Random(0), Probes(), Probes()
    for number in range(PROBES):
        secret = prefix(rng)
        callers["alice"].ask(secret)
        across.take(callers["bob"], secret, rng)
        if number % WITHIN_EVERY == 0:
            within.take(callers["alice"], secret, rng)
    for name, probes in (("across", across), ("within", within)):
        print(
            f"{name}: AUC {probes.auc():.3f}, by chance 0.5 +- {1.96 * probes.error():.3f} (95 %)"
        )
    assert within.auc() > 0.95, "the clock is too coarse to tell anything"
    assert 1.96 * across.error() < 0.05, "too few to tell chance from a leak"
    # Wider than 95 %, for the test is to fail once in a thousand runs where there is no leak.
    assert abs(across.auc() - 0.5) < 3.3 * across.error()


def test_cached_tokens_tell_a_tenant_of_its_own(callers: dict[str, Caller]) -> None:
    text = prefix(random.Random(1))
    assert callers["alice"].ask(text).cached_tokens < PREFIX_TOKENS
    assert callers["carol"].ask(f"{text} and then?").cached_tokens == 0  # she has never asked
    assert callers["alice"].ask(f"{text} and then?").cached_tokens >= PREFIX_TOKENS
    assert callers["carol"].ask(f"{text} and now?").cached_tokens >= PREFIX_TOKENS
