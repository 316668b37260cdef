"""All checks of one engine, each of them bounded in time; one that fails is a finding as well."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from parrot_backend.doctor.engine import (
    caching,
    closing,
    grammars,
    load,
    priority,
    siblings,
    tokens,
    tools,
)
from parrot_backend.doctor.engine.patient import Patient, RefusedError
from parrot_backend.doctor.findings import Finding
from parrot_backend.endpoints.cards import MeasuredCard

Check = Callable[[Patient], Awaitable[Finding]]

# In this order: whether cached tokens are told is used by later ones.
CHECKS: Mapping[str, tuple[Check, float]] = {
    "context": (load.check_context, 10),
    "cached tokens": (caching.check_told, 15),
    "cache salt": (caching.check_salt, 20),
    "siblings": (siblings.check, 60),
    "priority": (priority.check, 90),
    "closed connections": (closing.check, 25),
    "token ids": (tokens.check_token_ids, 10),
    "grammars": (grammars.check, 30),
    "tools": (tools.check, 30),
    "logprobs": (tokens.check_logprobs, 10),
    "greedy in a batch": (tokens.check_batching, 60),
    "slots": (load.check_slots, 60),
}
_REST_SECONDS = 0.2


async def examine(
    patient: Patient, began: Callable[[str], None] = lambda check: None
) -> list[Finding]:
    """Run every check, one after the other; `began` is told each one's name.

    Where the engine can't answer a chat, that is the only finding, and a fault.
    """
    began("speed")
    if trouble := await _warm(patient):
        return [replace(trouble, level="fault", advice="nothing was measured")]
    found = []
    for name, (check, seconds) in CHECKS.items():
        began(name)
        found.append(await _bounded(name, check(patient), seconds))
        await asyncio.sleep(_REST_SECONDS)
    return found


def card_of(findings: Sequence[Finding], before: MeasuredCard | None = None) -> MeasuredCard:
    """What the findings together say of the engine; what none could tell is as it was before."""
    facts: dict[str, Any] = {} if before is None else before.model_dump(exclude={"measured"})
    for finding in findings:
        facts.update(finding.facts)
    return MeasuredCard.model_validate(facts)


async def _warm(patient: Patient) -> Finding | None:
    """Find how fast prompts are read: the second time, for the first an engine may compile or load."""

    async def ask() -> Finding:
        await patient.chat(patient.text(64), 4)
        answer = await patient.chat(patient.text(256))
        patient.tokens_per_second = (answer.prompt_tokens or 256) / max(answer.waited, 1e-3)
        return Finding("speed", "ok", f"{patient.tokens_per_second:.0f} tokens of a prompt in 1 s")

    found = await _bounded("chat", ask(), 60)
    return None if found.level == "ok" else found


async def _bounded(name: str, checking: Awaitable[Finding], seconds: float) -> Finding:
    """A check's finding, whatever comes of it."""
    try:
        async with asyncio.timeout(seconds):
            return await checking
    except TimeoutError:
        return _unknown(name, f"no result in {seconds:g} s")
    except RefusedError as refused:
        return _unknown(name, f"refused ({refused})")
    except httpx.HTTPError as error:
        return _unknown(name, str(error) or type(error).__name__)
    except Exception as error:  # an answer may be anything
        reasons = "; ".join(_reasons(error))
        return _unknown(name, f"what was answered can't be understood ({reasons})")


def _reasons(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _reasons(each)
    else:
        yield f"{type(error).__name__}: {error}"[:120]


def _unknown(name: str, why: str) -> Finding:
    return Finding(name, "unknown", f"not known: {why}", "its kind's prior is used")
