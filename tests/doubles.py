"""A deterministic engine for tests of what surrounds the engine: timing is theirs to decide."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence

from parrot_backend.engines.base import (
    Candidate,
    Delta,
    EngineStats,
    FinishReason,
    GenerationRequest,
    ModelCard,
    Sampling,
    TokenLogprobs,
)
from parrot_backend.wire.errors import ContextLengthError, InvalidRequestError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.tools import Tool


def reverse(prompt: str) -> str:
    """The usual answer: different for every prompt, and easy to predict."""
    return prompt[::-1]


def scripted_logprobs(character: str, count: int | None) -> tuple[TokenLogprobs, ...]:
    """The character itself at -0.5 is the most likely one, the letters of the alphabet come next."""
    if count is None:
        return ()
    chosen = Candidate(ord(character), character.encode(), -0.5)
    others = [Candidate(97 + i, bytes([97 + i]), -1.0 - i) for i in range(count - 1)]
    return (TokenLogprobs(chosen, (chosen, *others)[:count]),)


class ScriptedEngine:
    """Answers with `script(prompt)`, a character a token; a prompt in `held` waits for its release.

    Prompts are the messages' contents, joined. A prompt that contains "FAIL" fails, "SEED" in an
    answer is the request's seed.
    """

    def __init__(self, script: Callable[[str], str] = reverse) -> None:
        self.model = ModelCard("scripted", 1000)
        self.slots = 10_000
        self.dead: str | None = None
        self.script = script
        self.held: dict[str, asyncio.Event] = {}
        self.started: list[str] = []
        self.priorities: dict[str, int] = {}
        self.samplings: dict[str, Sampling] = {}
        self.drafts: dict[str, str] = {}
        self.expected: list[str] = []
        self.running = 0

    def hold(self, prompt: str) -> asyncio.Event:
        self.held[prompt] = asyncio.Event()
        return self.held[prompt]

    def encode(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), *, fitting: bool = False
    ) -> list[int]:
        return [ord(character) for message in messages for character in message.content]

    def tokenize(self, text: str, *, fitting: bool = False) -> list[int]:
        return [ord(character) for character in text]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        if not all(0 <= token <= sys.maxunicode for token in request.prompt):
            raise InvalidRequestError(f"token ids must be from 0 to {sys.maxunicode}")
        prompt = "".join(map(chr, request.prompt))
        self.started.append(prompt)
        self.priorities[prompt] = request.priority
        self.samplings[prompt] = request.sampling
        self.drafts[prompt] = "".join(map(chr, request.draft))
        self.running += 1
        try:
            if "FAIL" in prompt:
                raise ContextLengthError(f"{len(prompt)} tokens do not fit")
            answer = self.script(prompt).replace("SEED", str(request.sampling.seed))
            for position, character in enumerate(answer):
                last = position == len(answer) - 1
                if last and prompt in self.held:
                    await self.held[prompt].wait()
                await asyncio.sleep(0)
                reason: FinishReason | None = "stop" if last else None
                logprobs = scripted_logprobs(character, request.sampling.logprobs)
                yield Delta(character, (ord(character),), 0, reason, logprobs)
        finally:
            self.running -= 1

    def expect(self, prefix: Sequence[int], tenant: str = "") -> Callable[[], None]:
        text = "".join(map(chr, prefix))
        self.expected.append(text)
        return lambda: self.expected.remove(text)

    def stats(self) -> EngineStats:
        return EngineStats(running=self.running)

    async def aclose(self) -> None:
        pass
