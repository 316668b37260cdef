"""Whether an answer that nobody reads any more is given up.

Several long answers are begun and left. Where the engine tells how many it runs, that count decides;
else whether a short answer right after them takes as long as it does alone.
"""

import asyncio
import json
import re
from collections.abc import Sequence

from parrot_backend.doctor.engine.patient import Patient, now
from parrot_backend.doctor.findings import Finding

CHECK = "closed connections"
LEFT = 8
# Of what long answers cost a short one, so much less or more shows that they are gone or there.
_GONE, _THERE = 0.4, 0.7
_ENDLESS = "Count from one to ten thousand in words, and leave none out."
_COUNTS = re.compile(
    r"^(?:vllm:num_requests_running|sglang:num_running_reqs|llamacpp:requests_processing)"
    r"(?:\{[^}]*\})? ([\d.e+]+)",
    re.MULTILINE,
)
_COST = (
    "what a user cancels, or loses a race, is computed to its end: set a short max_tokens, or put up "
    "with the load"
)


async def check(patient: Patient) -> Finding:
    """See the module."""
    before = await running(patient)
    alone = min([(await patient.chat("Hi", 8)).seconds for _ in range(2)])
    length = min(2048, (patient.context or 4096) // 2)
    left = [asyncio.create_task(_read(patient, length)) for _ in range(LEFT)]
    try:
        await _begun(left, alone)
        while_open = await running(patient)
        counted = before is not None and while_open is not None and while_open > before
        beside = 0.0 if counted else await _seconds(patient, 3.0)
        ended = all(task.done() for task in left)
    finally:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    if ended:
        return Finding(CHECK, "unknown", "not known: the answers ended before they were left")
    if before is not None and while_open is not None and counted:
        # One that is slow, or on a busy machine, notices late.
        return await _by_count(patient, before, while_open, within=2 + 4 * alone)
    return await _by_time(patient, alone, beside)


async def _read(patient: Patient, length: int) -> None:
    """Read a long answer, until this is cancelled, which closes the connection."""
    async for _ in patient.stream(f"{patient.text(4)}. {_ENDLESS}", length):
        pass


async def _begun(tasks: Sequence[asyncio.Task[None]], alone: float) -> None:
    """Long enough for the engine to be at them; some may wait for a slot."""
    _, open_still = await asyncio.wait(tasks, timeout=min(2.0, 0.2 + 2 * alone))
    if not open_still:
        for task in tasks:
            task.result()  # where it failed, that is the result


async def running(patient: Patient) -> int | None:
    """How many answers the engine says that it makes now; None where it says nothing."""
    if (text := await patient.get("/metrics")) and (counts := _COUNTS.findall(text)):
        return round(sum(map(float, counts)))
    if text := await patient.get("/v1/stats"):  # Parrot's
        return _number(text, "running")
    if text := await patient.get("/slots"):  # llama.cpp's
        try:
            return sum(bool(slot.get("is_processing")) for slot in json.loads(text))
        except (ValueError, AttributeError, TypeError):
            return None
    return None


def _number(text: str, name: str) -> int | None:
    try:
        return int(json.loads(text)[name])
    except (ValueError, LookupError, TypeError):
        return None


async def _seconds(patient: Patient, most: float) -> float:
    """What a short answer takes now, at most `most`."""
    began = now()
    try:
        async with asyncio.timeout(most):
            await patient.chat("Hi", 8)
    except TimeoutError:
        pass
    return now() - began


async def _by_count(patient: Patient, before: int, while_open: int, within: float) -> Finding:
    began = now()
    count: int | None = while_open
    while count is None or count > before:
        if now() - began > within:
            found = f"go on: {count} answers still run {within:.1f} s after their readers have left"
            return Finding(CHECK, "missing", found, _COST)
        await asyncio.sleep(0.05)
        count = await running(patient)
    found = f"freed: from {while_open} running to {count} in {now() - began:.2f} s"
    return Finding(CHECK, "ok", found)


async def _by_time(patient: Patient, alone: float, beside: float) -> Finding:
    """Long answers make a short one beside them slower: it tells when they are gone."""
    if beside < 1.5 * alone + 0.05:
        return Finding(CHECK, "unknown", "not known: an answer is as fast beside others as alone")
    await asyncio.sleep(0.3)
    after = min([await _seconds(patient, 5.0) for _ in range(3)])
    took = f"a short answer takes {alone:.2f} s alone, {beside:.2f} s beside, {after:.2f} s after"
    share = (after - alone) / (beside - alone)
    if share < _GONE:
        return Finding(CHECK, "ok", f"freed ({took})")
    if share < _THERE:
        return Finding(CHECK, "unknown", f"not certain ({took})", "try again with less load")
    return Finding(CHECK, "missing", f"go on ({took})", _COST)
