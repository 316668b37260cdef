"""An endpoint whose jobs go on when the test says so, and that dies and comes back at its word."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import count

from parrot_backend.endpoints.base import Card, EndpointState, Job
from parrot_backend.engines.base import Delta, EngineStats, FinishReason, ModelCard
from parrot_backend.wire.errors import EndpointLostError, EngineError, ParrotError
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import LLMRequest


def prompt_of(request: LLMRequest) -> str:
    assert isinstance(request, ChatRequest)
    return "".join(message.content for message in request.messages)


def answer_to(prompt: str) -> str:
    """Different for every prompt, short however long that is, and never empty."""
    return f"{len(prompt)}{prompt[:3][::-1]}."


class StagedJob:
    """One attempt at one generation. Its answer comes a character at a time."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.prompt = prompt_of(job.request)
        self.answer = answer_to(self.prompt)
        self.told = 0
        self.news: asyncio.Queue[int | ParrotError] = asyncio.Queue()

    def go_on(self, characters: int) -> None:
        self.news.put_nowait(characters)

    def end(self, error: ParrotError) -> None:
        self.news.put_nowait(error)


class StagedEndpoint:
    def __init__(self, slots: int, *, repeatable: bool = True, preempts: bool = False) -> None:
        self.card = Card(ModelCard("staged", 1000), slots, preempts=preempts, repeatable=repeatable)
        self.state: EndpointState = "ready"
        self.why: str | None = None
        self.jobs: dict[int, StagedJob] = {}
        self.expected = 0
        self._numbers = count()
        self._watchers: list[Callable[[], None]] = []

    async def start(self) -> None:
        pass

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(changed)

    def down(self) -> None:
        """Die, and all that runs with it."""
        self._become("dead")
        for job in self.jobs.values():
            job.end(EndpointLostError("the endpoint died"))

    def up(self) -> None:
        self._become("ready")

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        assert self.state == "ready", "a dead endpoint is given nothing"
        assert len(self.jobs) < self.card.slots, "it is given no more than it runs"
        number, staged = next(self._numbers), StagedJob(job)
        self.jobs[number] = staged
        try:
            while True:
                news = await staged.news.get()
                if isinstance(news, ParrotError):
                    raise news
                text = staged.answer[staged.told : staged.told + news]
                staged.told += news
                last = staged.told >= len(staged.answer)
                reason: FinishReason | None = "stop" if last else None
                tokens = tuple(map(ord, text))
                yield Delta(text, tokens, 0, reason, prompt_tokens=len(staged.prompt))
                if last:
                    return
        finally:
            del self.jobs[number]

    def fail(self, job: StagedJob) -> None:
        job.end(EngineError("the model failed"))

    async def tokenize(self, request: LLMRequest) -> list[int]:
        return list(map(ord, prompt_of(request)))

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        self.expected += 1

        def forget() -> None:
            self.expected -= 1

        return forget

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self.jobs))

    async def aclose(self) -> None:
        self._become("dead")

    def _become(self, state: EndpointState) -> None:
        self.state = state
        for changed in self._watchers:
            changed()
