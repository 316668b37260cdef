"""Tiny random models with a byte-level tokenizer, and a stepper that checks its memory."""

from collections import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from parrot_backend.engines.base import Delta, GenerationRequest, Sampling
from parrot_backend.engines.torch_engine.choose.constraints import Constraint
from parrot_backend.engines.torch_engine.choose.detokenizer import TextStream
from parrot_backend.engines.torch_engine.choose.logprobs import LogprobsTeller
from parrot_backend.engines.torch_engine.choose.sampling import Sampler
from parrot_backend.engines.torch_engine.forward.forward_pass import StepModel
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.memory.integrity import check_memory
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.kv_memory import KVMemory
from parrot_backend.engines.torch_engine.schedule.sequence import Event, Sequence
from parrot_backend.engines.torch_engine.schedule.stepper import Stepper

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{% if message.name %}{{ raise_exception('no names here') }}{% endif %}"
    "<{{ message.role }}>{{ message.content }}</{{ message.role }}>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, after an end token: every non-ASCII character takes several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0, "<unknown>": 1} | {c: i + 2 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", chat_template=CHAT_TEMPLATE
    )


def save_tiny(config: Any, folder: Path) -> str:
    """A random model of `config`, wide enough in its weights that two logits are never close."""
    torch.manual_seed(1)
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], str]:
    """Saves a tiny random model of a config, and says where."""
    return lambda config: save_tiny(config, tmp_path_factory.mktemp(config.model_type))


TINY = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": None,
}


@pytest.fixture(scope="session")
def tiny_shape() -> dict[str, Any]:
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_path(make_tiny: Callable[[Any], str]) -> str:
    return make_tiny(LlamaConfig(**TINY, num_key_value_heads=2))


@pytest.fixture(scope="session")
def tiny(tiny_path: str) -> LoadedModel:
    return load_model(tiny_path)


class Reference:
    """transformers' own greedy generation, remembered."""

    def __init__(self, path: str) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._known: dict[tuple[int, ...], list[int]] = {}

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        known = self._known.get(tuple(prompt), [])
        if len(known) < count and not (known and known[-1] in self._ends):
            ids = torch.tensor([prompt])
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
            known = output[0, len(prompt) :].tolist()
            self._known[tuple(prompt)] = known
        return known[:count]

    @property
    def _ends(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    def check(self, prompt: list[int], got: list[int], count: int) -> None:
        """`got` is what generate gives, or parts from it where two tokens are tied."""
        expected = self.greedy(prompt, count)
        if got == expected:
            return
        assert len(got) == len(expected), (prompt, got, expected)
        same = next(i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b)
        ids = torch.tensor([prompt + expected[:same]])
        with torch.inference_mode():
            logits = self.model(ids).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        print(f"token {same}: {got[same]} for {expected[same]}, top-2 margin {first - second:.2e}")
        assert first - second < 1e-3, (prompt, got, expected)

    def check_forced(self, answers: abc.Sequence[tuple[list[int], list[int]]]) -> int:
        """Each prompt's answer is what generate gives, or parts from it where two tokens are tied.

        One forward pass over several texts shows for each token of an answer whether it is the best
        one after the prompt and the answer so far, and so, by induction, what generate gives. This
        goes on behind a tie, where a comparison with generate has to end. An answer without a tie is
        remembered as generate's.

        Returns:
            The number of ties; each is printed.
        """
        new = [(p, a) for p, a in answers if self._known.get(tuple(p), [])[: len(a)] != a]
        texts = sorted(new, key=lambda text: len(text[0]) + len(text[1]))
        return sum(self._ties(texts[start : start + 8]) for start in range(0, len(texts), 8))

    def _ties(self, texts: abc.Sequence[tuple[list[int], list[int]]]) -> int:
        longest = max(len(prompt) + len(answer) for prompt, answer in texts)
        # What stands behind a text changes nothing in it: attention is causal.
        ids = torch.tensor([(p + a + [0] * longest)[:longest] for p, a in texts])
        rows = [i for i, (_, answer) in enumerate(texts) for _ in answer]
        places = [len(prompt) - 1 + i for prompt, answer in texts for i in range(len(answer))]
        with torch.inference_mode():
            logits = self.model.lm_head(self.model.model(ids).last_hidden_state[rows, places])
        chosen = torch.tensor([token for _, answer in texts for token in answer])
        best, order = logits.topk(2)
        different = (order[:, 0] != chosen).nonzero().flatten().tolist()
        for at in different:
            margin = float(best[at, 0] - best[at, 1])
            print(f"{chosen[at]} for {order[at, 0]}, top-2 margin {margin:.2e}")
            assert chosen[at] == order[at, 1], texts[rows[at]]
            assert margin < 1e-3, texts[rows[at]]
        tied = {rows[at] for at in different}
        self._known |= {tuple(p): a for i, (p, a) in enumerate(texts) if i not in tied}
        return len(different)


@pytest.fixture(scope="session")
def make_reference() -> Callable[[str], Reference]:
    return Reference


@pytest.fixture(scope="session")
def tiny_reference(tiny_path: str) -> Reference:
    return Reference(tiny_path)


@dataclass
class Client:
    """One generation and everything that it was told."""

    sequence: Sequence
    prompt: list[int]
    events: list[Event] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [t for event in self.events if isinstance(event, Delta) for t in event.tokens]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta))

    @property
    def last(self) -> Event:
        return self.events[-1]


class CheckedStepper:
    """A stepper for tests: checks the memory after everything it does."""

    def __init__(self, loaded: LoadedModel, slots: int, **options: Any) -> None:
        self.loaded = loaded
        forward = loaded.forward
        self.cache = KVCache(loaded.shapes, slots, forward.kv_dtype, torch.device("cpu"))
        self.memory = KVMemory(slots)
        options = {"max_batch": 32, "prefill_budget": 512} | options
        self.step_model = StepModel(forward, self.cache)
        self.stepper = Stepper(self.step_model, self.memory, **options)
        self.preemptions = 0
        self.steps = 0
        self._arrivals = 0

    def add(
        self,
        prompt: Iterable[int],
        sampling: Sampling | None = None,
        priority: int = 0,
        tenant: str = "",
        *,
        draft: abc.Sequence[int] = (),
        drafts: bool = True,
        constraint: Constraint | None = None,
        kv_share: float = 1.0,
        interactive: bool = False,
    ) -> Client:
        sampling = sampling or Sampling(temperature=0, max_tokens=12)
        request = GenerationRequest(
            list(prompt), sampling, priority, tenant, draft, kv_share, interactive
        )
        room = self.loaded.context_length
        asked = room if sampling.max_tokens is None else len(request.prompt) + sampling.max_tokens
        events: list[Event] = []
        sequence = Sequence(
            request,
            arrival=self._arrivals,
            limit=min(room, asked),
            end_tokens=self.loaded.end_tokens,
            sampler=Sampler(
                sampling, torch.device("cpu"), prompt=request.prompt, constraint=constraint
            ),
            text=TextStream(self.loaded.tokenizer, sampling.stop),
            deliver=events.append,
            logprobs=self._logprobs(sampling),
            drafts=drafts,
        )
        self._arrivals += 1
        self.stepper.add(sequence)
        return Client(sequence, request.prompt, events)

    def _logprobs(self, sampling: Sampling) -> LogprobsTeller | None:
        if sampling.logprobs is None:
            return None
        return LogprobsTeller(sampling.logprobs, lambda token: b"%d " % token)

    def step(self) -> None:
        running = {s for s in self.stepper.sequences if s.holding}
        for sequence, event in self.stepper.step():
            sequence.deliver(event)
        self.steps += 1
        self.preemptions += sum(not s.holding and not s.finished for s in running)
        self.check()

    def cancel(self, client: Client) -> None:
        self.stepper.cancel(client.sequence)
        self.check()

    def check(self) -> None:
        holdings = [s.holding for s in self.stepper.sequences if s.holding]
        check_memory(self.memory, holdings)
        stats = self.stepper.stats
        assert stats.kv_used_tokens + stats.kv_cached_tokens + self.memory.slots.free == (
            stats.kv_capacity_tokens
        )

    def run(self) -> None:
        while self.stepper.busy:
            self.step()
        assert self.stepper.stats.kv_used_tokens == 0


@pytest.fixture
def make_stepper(tiny: LoadedModel) -> Callable[..., CheckedStepper]:
    """A checked stepper over the tiny model (or another): slots, max_batch, prefill_budget."""

    def make(slots: int = 4096, loaded: LoadedModel = tiny, **options: Any) -> CheckedStepper:
        return CheckedStepper(loaded, slots, **options)

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """On a machine with other work, threads that wait for each other cost more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
