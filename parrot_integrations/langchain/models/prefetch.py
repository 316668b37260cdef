"""`generate` over many prompts, submitted at once: LangChain's own loop asks for one after another."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from parrot_integrations.client import ParrotClient, active_sessions
from parrot_integrations.langchain.models.messages import to_wire
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedRun
from parrot_integrations.planning.values import Prompt, literal_message

logger = logging.getLogger(__name__)


def obstacle(llm: BaseChatModel) -> str | None:
    """Why the model's calls can't start before LangChain asks for them; None where they can."""
    if llm.rate_limiter is not None:
        return "has a rate limiter, which planned calls would overrun"
    if llm.cache or (llm.cache is None and get_llm_cache() is not None):
        return "has a cache, and a hit must not cost a call"
    if getattr(llm, "http_async_client", None) and not getattr(llm, "http_client", None):
        return "has an http_async_client but no http_client, which the plan could be sent over"
    return None


def may_run_ahead(llm: BaseChatModel, client: ParrotClient) -> bool:
    """Whether calls may start before LangChain asks for them.

    Not inside a plan, which has these calls already or knows why not.
    """
    return obstacle(llm) is None and client.key not in active_sessions.get()


@contextmanager
def submitted(
    client: ParrotClient, prompts: Sequence[list[BaseMessage]], parameters: Mapping[str, Any]
) -> Iterator[None]:
    """Submit one call for each prompt; equal requests that are sent inside claim them.

    Requests that differ, and prompts that can't be submitted, run when they are asked for.
    """
    with PlannedRun(_plan(client, prompts, parameters)) as run, run.active():
        yield


def _plan(
    client: ParrotClient, prompts: Sequence[list[BaseMessage]], parameters: Mapping[str, Any]
) -> Plan:
    plan = Plan()
    plan.client = client
    for prompt in prompts:
        try:
            messages = tuple(literal_message(to_wire(message)) for message in prompt)
            plan.call(Prompt(messages), parameters)
        except ValueError:  # not supported by a plan or at all: the loop gets to it, and says so
            continue
        except Exception:
            logger.exception("planning failed, %d prompts run one by one", len(prompts))
            return Plan()
    return plan
