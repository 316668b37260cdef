"""How many answers an engine makes at once, and how long its context is."""

import asyncio
import re
from collections.abc import Sequence

from parrot_backend.doctor.engine.patient import Patient, RefusedError, Sample
from parrot_backend.doctor.findings import Finding

_TOKENS = 24
# What one more doubling has to bring.
_GROWS = 1.15


async def check_slots(patient: Patient) -> Finding:
    """How many streams run at the same time; no more are tried where more bring no more tokens."""
    rates: dict[int, float] = {}
    at_once: dict[int, int] = {}
    for count in (1, 2, 4, 8, 16, 32) if patient.quick else (1, 2, 4, 8, 16, 32, 64):
        answers = await asyncio.gather(
            *(patient.chat(f"{patient.text(6)}: tell a story.", _TOKENS) for _ in range(count))
        )
        rates[count], at_once[count] = _rate(answers), _overlap(answers)
        full = at_once[count] < count
        grows = len(rates) < 3 or rates[count] >= _GROWS * rates[count // 4]
        if (slots := _slots(at_once)) or not (grows or full):
            break
    told = f"{slots} at once" if slots else f"at least {max(at_once.values())} at once"
    found = f"{told}; tokens/s: " + ", ".join(f"{n}: {rate:.0f}" for n, rate in rates.items())
    return Finding("slots", "ok", found, facts={"slots": slots})


def _rate(answers: Sequence[Sample]) -> float:
    tokens = sum(answer.completion_tokens or _TOKENS for answer in answers)
    seconds = max(each.ended for each in answers) - min(each.began for each in answers)
    return tokens / max(seconds, 1e-6)


def _overlap(answers: Sequence[Sample]) -> int:
    """The most that were between their first text and their end at the same time."""
    changes = sorted(
        [(answer.first, 1) for answer in answers] + [(answer.ended, -1) for answer in answers]
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _slots(at_once: dict[int, int]) -> int | None:
    """Where more were asked for twice, and as many ran both times."""
    full = [ran for count, ran in at_once.items() if ran < count][-2:]
    return full[0] if len(full) > 1 and full[0] == full[1] else None


async def check_context(patient: Patient) -> Finding:
    """What fits: as the engine tells, or as it says when it is asked for too much."""
    check = "context"
    if patient.context:
        facts = {"context_length": patient.context}
        return Finding(check, "ok", f"{patient.context} tokens, as it tells", facts=facts)
    try:
        async with asyncio.timeout(5):
            async for _ in patient.stream("Hi", 10_000_000):
                break
    except RefusedError as refused:
        numbers = [int(n) for n in re.findall(r"\b\d{3,7}\b", refused.words) if n != "10000000"]
        if numbers:
            found = f"{numbers[0]} tokens, as it says when asked for more"
            return Finding(check, "ok", found, facts={"context_length": numbers[0]})
    advice = "a prompt that is too long is noticed by the engine only, and by some not at all"
    return Finding(check, "missing", "not told", advice, {"context_length": None})
