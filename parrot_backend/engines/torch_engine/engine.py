"""`TorchEngine`: the `Engine` that asyncio sees of the thread that computes."""

import asyncio
import functools
import itertools
from collections import abc
from concurrent.futures import ThreadPoolExecutor

import torch

from parrot_backend.engines.base import Delta, EngineStats, GenerationRequest, ModelCard
from parrot_backend.engines.torch_engine.chat_template import ChatTemplate
from parrot_backend.engines.torch_engine.choose import drawing
from parrot_backend.engines.torch_engine.choose.constraints import Grammars
from parrot_backend.engines.torch_engine.choose.detokenizer import TextStream
from parrot_backend.engines.torch_engine.choose.logprobs import LogprobsTeller
from parrot_backend.engines.torch_engine.choose.sampling import Sampler
from parrot_backend.engines.torch_engine.choose.vocabulary import Vocabulary
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.forward.forward_pass import StepModel
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.load.quality import Quantization
from parrot_backend.engines.torch_engine.memory.kv_cache import (
    KVCache,
    default_kv_memory,
    token_bytes,
)
from parrot_backend.engines.torch_engine.memory.kv_memory import KVMemory
from parrot_backend.engines.torch_engine.request_checks import check_request
from parrot_backend.engines.torch_engine.schedule.sequence import Event, Sequence
from parrot_backend.engines.torch_engine.schedule.stepper import Stepper
from parrot_backend.engines.torch_engine.tokenizing import encode_text, longest_text
from parrot_backend.engines.torch_engine.worker import Worker
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationConfig
from parrot_backend.wire.tools import Tool


class TorchEngine:
    """Runs one model for many generations at once; see `Engine`.

    Make one with `load`. It has a thread of its own until `aclose`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        card: ModelCard,
        worker: Worker,
        *,
        capacity: int,
        drafting: bool,
    ) -> None:
        # Not the model itself: the forward pass may have weights of its own, and they count once.
        self._tokenizer = loaded.tokenizer
        self._template = ChatTemplate(loaded.tokenizer)
        self._end_tokens = loaded.end_tokens
        self._vocabulary = Vocabulary(
            loaded.tokenizer, loaded.forward.vocabulary, loaded.end_tokens
        )
        self._grammars = Grammars(self._vocabulary)
        self._device = torch.device("cpu")
        self._card = card
        self._context_length = loaded.context_length
        self._worker = worker
        self._capacity = capacity
        self._drafting = drafting
        self._arrivals = itertools.count()

    @classmethod
    def load(
        cls,
        path: str,
        name: str,
        *,
        kv_memory: int | None = None,
        max_batch: int = 32,
        max_waiting: int = 1024,
        prefill_budget: int = 512,
        step_seconds: float | None = 1.0,
        drafting: bool = True,
        prefill_ahead: bool = True,
        quantization: Quantization | None = None,
        generation_config: GenerationConfig = OPENAI_DEFAULTS,
    ) -> "TorchEngine":
        """Load a model and start its engine; takes seconds, and blocks meanwhile.

        Args:
            path: a Hugging Face folder, a GGUF file or a folder with one, or the id of a model on
                the hub.
            name: what clients call the model.
            kv_memory: bytes for keys and values; by default a quarter of the memory that is free, at
                most 4 GiB of main memory.
            max_batch: generations that run at once.
            max_waiting: generations that may wait; more are refused.
            prefill_budget: prompt tokens computed per step at most.
            step_seconds: what a step should take, which bounds the prompt tokens too. Longer is
                faster for prompts and makes running generations wait for their next token.
            drafting: compute several tokens of an answer in one step where it repeats a text. The
                answers are the same without.
            prefill_ahead: compute what is expected before it is asked for, where a step has room.
            quantization: "int8" computes a Llama-like model with weights in 8 bits about twice
                as fast; the first start with it rounds them, and the log says what that costs in
                quality.
            generation_config: how it generates where a request does not say.

        Raises:
            ModelLoadError: the model can't be loaded, or `kv_memory` is too small for one token.
        """
        # In a thread that ends: OpenMP keeps a team of threads for every thread that ever computed, and
        # while there are more of them than cores, each waits asleep, which doubles the time of a step.
        with ThreadPoolExecutor(1) as loading:
            return loading.submit(
                lambda: cls.start(
                    load_model(path, quantization),
                    name,
                    kv_memory=kv_memory,
                    max_batch=max_batch,
                    max_waiting=max_waiting,
                    prefill_budget=prefill_budget,
                    step_seconds=step_seconds,
                    drafting=drafting,
                    prefill_ahead=prefill_ahead,
                    generation_config=generation_config,
                )
            ).result()

    @classmethod
    def start(
        cls,
        loaded: LoadedModel,
        name: str,
        *,
        kv_memory: int | None = None,
        max_batch: int = 32,
        max_waiting: int = 1024,
        prefill_budget: int = 512,
        step_seconds: float | None = 1.0,
        drafting: bool = True,
        prefill_ahead: bool = True,
        generation_config: GenerationConfig = OPENAI_DEFAULTS,
    ) -> "TorchEngine":
        """Start the engine of a model that is loaded already; the arguments are those of `load`."""
        drawing.warm_up()
        forward = loaded.forward
        per_token = token_bytes(loaded.shapes, forward.kv_dtype)
        kv_memory = default_kv_memory() if kv_memory is None else kv_memory
        if kv_memory < 2 * per_token:
            raise ModelLoadError(
                f"kv_memory is {kv_memory} bytes and {name!r} takes {per_token} per token: "
                "give it room for a prompt"
            )
        cache = KVCache(
            loaded.shapes, kv_memory // per_token, forward.kv_dtype, torch.device("cpu")
        )
        step_model = StepModel(forward, cache)
        stepper = Stepper(
            step_model,
            KVMemory(cache.slots),
            max_batch=max_batch,
            prefill_budget=prefill_budget,
            step_seconds=step_seconds,
            prefill_ahead=prefill_ahead,
        )
        card = ModelCard(
            name,
            min(loaded.context_length, cache.slots),
            loaded.quantization,
            longest_text(loaded.tokenizer, loaded.context_length),
            generation_config,
        )
        worker = Worker(stepper, max_waiting, loaded.rest)
        return cls(loaded, card, worker, capacity=cache.slots, drafting=drafting)

    @property
    def model(self) -> ModelCard:
        """The model that is loaded."""
        return self._card

    @property
    def slots(self) -> int:
        """Generations that it runs at once."""
        return self._worker.slots

    @property
    def dead(self) -> str | None:
        """Why it runs nothing any more, where it has ended by itself."""
        return self._worker.dead

    def encode(
        self,
        messages: abc.Sequence[ChatMessage],
        tools: abc.Sequence[Tool] = (),
        *,
        fitting: bool = False,
    ) -> list[int]:
        """Apply the chat template, generation prompt included. Callable from any thread.

        Raises:
            InvalidRequestError: the model's template refuses the messages.
            ContextLengthError: it has to be `fitting`, and is seen not to be.
        """
        return self._template.encode(messages, tools, self._context_length if fitting else None)

    def tokenize(self, text: str, *, fitting: bool = False) -> list[int]:
        """Tokens of a raw text as the model expects its beginning: with the special tokens, if any.

        Callable from any thread.

        Raises:
            InvalidRequestError: it is not valid Unicode.
            ContextLengthError: it has to be `fitting`, and is seen not to be.
        """
        most = self._context_length if fitting else None
        return encode_text(
            self._tokenizer, text, param="prompt", add_special_tokens=True, most=most
        )

    async def generate(self, request: GenerationRequest) -> abc.AsyncGenerator[Delta, None]:
        """Queue a generation and yield what it produces; closing the iterator frees its memory.

        It is queued when the first delta is asked for.

        Raises:
            InvalidRequestError: the prompt is empty, a parameter is out of its range, or nothing can
                match the grammar.
            ContextLengthError: the prompt leaves no room for one token.
            KVMemoryError: the prompt alone is longer than the KV memory.
            OverloadedError: the waiting queue is full.
            EngineError: the model failed under the request.
            UnavailableError: the engine is closed.
            EndpointLostError: the engine has ended by itself.
        """
        check_request(
            request,
            model=self._card.name,
            context_length=self._context_length,
            vocabulary=self._vocabulary.size,
            capacity=self._capacity,
        )
        events: asyncio.Queue[Event] = asyncio.Queue()
        sequence = await self._sequence(request, events)
        self._worker.submit(sequence)
        try:
            while True:
                event = await events.get()
                if isinstance(event, ParrotError):
                    raise event
                yield event
                if event.finish_reason:
                    return
        finally:
            self._worker.cancel(sequence)

    def expect(self, prefix: abc.Sequence[int], tenant: str = "") -> abc.Callable[[], None]:
        """Compute `prefix` where there is room, and evict it last, until the result is called."""
        who = object()
        self._worker.expect(who, tenant, prefix)
        return functools.partial(self._worker.unexpect, who)

    def stats(self) -> EngineStats:
        """The load and the counts, at this moment."""
        return self._worker.stats

    async def aclose(self) -> None:
        """Stop; what is running fails with `UnavailableError`."""
        self._grammars.close()
        await asyncio.to_thread(self._worker.close)

    async def _sequence(self, request: GenerationRequest, events: asyncio.Queue[Event]) -> Sequence:
        sampling, room = request.sampling, self._context_length
        asked = room if sampling.max_tokens is None else len(request.prompt) + sampling.max_tokens
        loop = asyncio.get_running_loop()
        constraint, logprobs = None, None
        if sampling.grammar is not None:
            constraint = await self._grammars.constraint(sampling.grammar)
        if sampling.logprobs is not None:
            await asyncio.to_thread(self._vocabulary.prepare)
            logprobs = LogprobsTeller(sampling.logprobs, self._vocabulary.content)
        # What ends an answer stands in a chat's prompt after each message, and is no repetition there:
        # penalized, it would not come.
        held = (token for token in request.prompt if token not in self._end_tokens)
        return Sequence(
            request,
            arrival=next(self._arrivals),
            limit=min(room, asked),
            end_tokens=self._end_tokens,
            sampler=Sampler(sampling, self._device, prompt=held, constraint=constraint),
            text=TextStream(self._tokenizer, sampling.stop, sampling.no_stop_after),
            deliver=lambda event: _hand_over(loop, events, event),
            logprobs=logprobs,
            drafts=self._drafting,
        )


def _hand_over(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event], event: Event) -> None:
    loop.call_soon_threadsafe(events.put_nowait, event)
