"""The dispatcher: hands ready calls to the engine and owns the task of each until it has ended."""

import asyncio
import logging
import time
from collections.abc import Callable

from parrot_backend.endpoints.base import Endpoint, Job
from parrot_backend.serving.call import Call
from parrot_backend.wire.errors import (
    EngineError,
    NotFoundError,
    OverloadedError,
    ParrotError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

OnEvent = Callable[[Call], None]


def _ignore(_: Call) -> None:
    """For calls of no session: nobody keeps book."""


class Dispatcher:
    """Runs calls on one endpoint, at most `max_unfinished` at a time, queued ones included."""

    def __init__(self, endpoint: Endpoint, max_unfinished: int) -> None:
        self.endpoint = endpoint
        self._max_unfinished = max_unfinished
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._closed = False
        self.applications = 0

    def new_application(self) -> int:
        """The number of an application that begins now, `applications` before; older ones are lower."""
        self.applications += 1
        return self.applications - 1

    def check_model(self, model: str | None) -> str:
        """The name of the model that serves `model`; None means the server's own.

        Raises:
            NotFoundError: this server does not serve that model.
        """
        served = self.endpoint.card.model.name
        if model not in (None, served):
            raise NotFoundError(
                f"model '{model}' is not served here: this server serves '{served}'. Leave the model "
                f"out, or start a server with --model {model}",
                param="model",
                code="model_not_found",
            )
        return served

    def start(
        self,
        call: Call,
        *,
        tenant: str = "",
        on_first_token: OnEvent = _ignore,
        on_end: OnEvent = _ignore,
    ) -> None:
        """Run a rendered call; `on_end` is called before any reader sees that it has ended.

        Raises:
            OverloadedError: too many calls are unfinished.
            UnavailableError: the server is shutting down.
        """
        if self._closed:
            raise UnavailableError("the server is shutting down")
        if len(self._tasks) >= self._max_unfinished:
            raise OverloadedError(
                f"{len(self._tasks)} calls are unfinished, the most this server takes: try again later"
            )
        call.state, call.dispatched = "running", time.time()
        call.queued = call.queued or call.dispatched
        run = self._run(call, tenant, on_first_token, on_end)
        task = asyncio.create_task(run, name=f"call {call.id}")
        self._tasks[call] = task
        task.add_done_callback(lambda _: self._tasks.pop(call, None))

    def cancel(self, call: Call) -> None:
        """Stop a call's task; the engine frees what it held within a step. The caller ends the call."""
        if (task := self._tasks.get(call)) is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel what runs and wait until it is gone."""
        self._closed = True
        tasks = dict(self._tasks)
        for call, task in tasks.items():
            task.cancel()
            call.end("cancelled", UnavailableError("the server is shutting down"))
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _run(self, call: Call, tenant: str, on_first_token: OnEvent, on_end: OnEvent) -> None:
        try:
            await self._generate(call, tenant, on_first_token, on_end)
        except ParrotError as error:
            self._end_failed(call, error, on_end)
        except Exception as error:
            logger.exception("call %s failed", call.id)
            self._end_failed(call, EngineError(f"the engine failed: {error!r}"), on_end)

    async def _generate(
        self, call: Call, tenant: str, on_first_token: OnEvent, on_end: OnEvent
    ) -> None:
        request = call.request
        if request is None:
            raise EngineError(f"call '{call.id}' was started before its inputs were there")
        deltas = self.endpoint.generate(Job(request, call.priority, tenant, call.draft))
        try:
            async for delta in deltas:
                if call.completion_tokens == 0 and delta.tokens:
                    on_first_token(call)
                call.publish(delta)
                if delta.finish_reason is not None:
                    call.state = "done"
                    on_end(call)
                    call.end("done")
        finally:
            await deltas.aclose()

    def _end_failed(self, call: Call, error: ParrotError, on_end: OnEvent) -> None:
        call.state, call.error = "failed", error
        on_end(call)
        call.end("failed", error)
