"""Tokens: whether their ids and logprobs are told, and whether a batch changes them."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from parrot_backend.doctor.engine.patient import Patient, RefusedError
from parrot_backend.doctor.findings import Finding

_FEW_IDS = [50 + 7 * number for number in range(40)]
_ASIDE = 7


async def check_logprobs(patient: Patient) -> Finding:
    """Whether each token of an answer comes with its logarithm of probability."""
    check, none = "logprobs", {"tells_logprobs": False}
    advice = "what needs the certainty of an answer, such as scoring or best-of, can't run on it"
    try:
        answer = await patient.chat("Say hello.", 6, logprobs=True, top_logprobs=1)
    except RefusedError as refused:
        return Finding(check, "missing", f"refused ({refused})", advice, none)
    if not answer.logprobs:
        return Finding(check, "missing", "not told", advice, none)
    told = [entry.get("logprob", math.nan) for entry in answer.logprobs]
    text = "".join(str(entry.get("token")) for entry in answer.logprobs)
    if not all(isinstance(each, int | float) and -1e5 < each <= 1e-6 for each in told):
        return Finding(check, "missing", f"told, but they are none: {told[:3]}", advice, none)
    if answer.text.strip() not in text:
        return Finding(check, "missing", "told, but of other tokens than the chosen", advice, none)
    found = f"told of the chosen token ({len(told)} of {answer.completion_tokens or len(told)})"
    return Finding(check, "ok", found, facts={"tells_logprobs": True})


async def check_token_ids(patient: Patient) -> Finding:
    """Whether a prompt may be token ids, and whether the answer's are told."""
    check, body = "token ids", {"prompt": _FEW_IDS, "max_tokens": 4, "temperature": 0}
    advice = "texts go over as text, and are tokenized once more each time"
    try:
        told = await patient.post("/v1/completions", body)
    except RefusedError as refused:
        none = {"takes_token_ids": False, "tells_token_ids": False}
        return Finding(check, "missing", f"not taken ({refused})", advice, none)
    counted = (told.get("usage") or {}).get("prompt_tokens")
    # Some put a token of their own in front; a text of numbers would be over a hundred.
    taken = counted in (len(_FEW_IDS), len(_FEW_IDS) + 1)
    ids = await _told_ids(patient, body) if taken else None
    facts = {"takes_token_ids": taken, "tells_token_ids": bool(ids)}
    if not taken:
        found = f"taken for something else: {len(_FEW_IDS)} ids were {counted} tokens"
        return Finding(check, "missing", found, advice, facts)
    if ids:
        return Finding(check, "ok", f"taken and told ({len(ids)} of the answer)", facts=facts)
    advice = "what was answered is tokenized again before it can be sent as a prompt"
    return Finding(check, "missing", "taken, but the answer's are not told", advice, facts)


async def _told_ids(patient: Patient, body: Mapping[str, Any]) -> Sequence[int] | None:
    try:
        told = await patient.post("/v1/completions", {**body, "return_token_ids": True})
    except RefusedError:
        return None
    ids = told["choices"][0].get("token_ids")
    return ids if isinstance(ids, list) and all(isinstance(each, int) for each in ids) else None


async def check_batching(patient: Patient) -> Finding:
    """Whether greedy answers are the same beside seven others as alone."""
    check = "greedy in a batch"
    advice = (
        "a call that is run again after a fault may go on differently, and results depend on the load; "
        "float32 weights change it least often"
    )
    prompts = [
        f"{patient.text(24)}. Go on in your own words." for _ in range(2 if patient.quick else 4)
    ]
    alone = [(await patient.chat(prompt, 32)).text for prompt in prompts]
    again = [(await patient.chat(prompt, 32)).text for prompt in prompts]
    beside = [await _beside(patient, prompt) for prompt in prompts]
    repeated, same = _equal(alone, again), _equal(again, beside)
    facts = {"batching_changes_tokens": same < len(prompts)}
    if same == len(prompts) and repeated == len(prompts):
        return Finding(check, "ok", f"the same text, {same} of {same} times", facts=facts)
    if repeated < len(prompts):
        found = f"even alone only {repeated} of {len(prompts)} answers are the same again"
        return Finding(check, "missing", found, advice, {"batching_changes_tokens": True})
    found = f"{len(prompts) - same} of {len(prompts)} answers change beside others"
    return Finding(check, "missing", found, advice, facts)


async def _beside(patient: Patient, prompt: str) -> str:
    """The answer while others are made, which began before it and are longer."""
    others = [
        asyncio.create_task(patient.chat(patient.text(16 + 8 * number), 64))
        for number in range(_ASIDE)
    ]
    try:
        await asyncio.sleep(0.05)
        return (await patient.chat(prompt, 32)).text
    finally:
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _equal(some: Sequence[str], others: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))
