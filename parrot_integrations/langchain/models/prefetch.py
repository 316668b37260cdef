"""`generate` over many prompts, submitted at once: LangChain's own loop asks for one after another."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from parrot_backend.wire.protocol import Output, Program, SemanticCall
from parrot_integrations.client import ParrotClient, active_sessions
from parrot_integrations.client.errors import ParrotError
from parrot_integrations.langchain.models.messages import to_wire

logger = logging.getLogger(__name__)


def obstacle(llm: BaseChatModel) -> str | None:
    """Why the model's calls can't start before LangChain asks for them; None where they can."""
    if llm.rate_limiter is not None:
        return "has a rate limiter, which planned calls would overrun"
    if llm.cache or (llm.cache is None and get_llm_cache() is not None):
        return "has a cache, and a hit must not cost a call"
    return None


def may_run_ahead(llm: BaseChatModel, client: ParrotClient) -> bool:
    """Whether calls may start before LangChain asks for them.

    Not inside a plan, which has these calls already or knows why not.
    """
    return obstacle(llm) is None and client.key not in active_sessions.get()


@contextmanager
def submitted(
    client: ParrotClient, prompts: Sequence[list[BaseMessage]], parameters: dict[str, Any]
) -> Iterator[Context]:
    """Submit one call for each prompt, and give the context in which equal requests claim them.

    Requests that differ, and prompts that can't be submitted, run when they are asked for.
    """
    context = copy_context()
    session_id = _open(client, prompts, parameters)
    if session_id is not None:
        context.run(active_sessions.set, {**active_sessions.get(), client.key: session_id})
    try:
        yield context
    finally:
        if session_id is not None:
            _close(client, session_id)


def _open(
    client: ParrotClient, prompts: Sequence[list[BaseMessage]], parameters: dict[str, Any]
) -> str | None:
    try:
        return client.open_session(_program(prompts, parameters)).id
    except ValueError:  # not supported by a plan or at all: the loop gets to it, and says so
        return None
    except ParrotError as error:
        logger.warning("%d prompts were not submitted at once: %s", len(prompts), error)
        return None


def _program(prompts: Sequence[list[BaseMessage]], parameters: dict[str, Any]) -> Program:
    calls = [
        SemanticCall.model_validate(
            {
                "id": f"call-{number}",
                "messages": [_planned(message) for message in prompt],
                "output": f"answer-{number}",
                **parameters,
            }
        )
        for number, prompt in enumerate(prompts, start=1)
    ]
    outputs = [Output(variable=call.output, group="generate") for call in calls]
    return Program(calls=calls, outputs=outputs)


def _planned(message: BaseMessage) -> dict[str, Any]:
    wire = to_wire(message)
    text = wire["content"]
    return {**wire, "content": [{"type": "text", "text": text}] if text else []}


def _close(client: ParrotClient, session_id: str) -> None:
    try:
        client.close_session(session_id)
    except ParrotError as error:
        logger.warning("session %s was not closed: %s", session_id, error)
