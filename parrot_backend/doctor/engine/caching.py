"""What an engine keeps of prompts, whether it says so, and who finds it again.

Told numbers of cached tokens decide where there are any; else the time to the first token does, each
time of a prompt that nobody has asked before, three times over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from parrot_backend.doctor.engine.patient import Patient, RefusedError, Sample
from parrot_backend.doctor.findings import Finding

# A second answer that comes in less than this part of the first one's time has found its prompt.
_SOONER = 0.6
# Engines keep whole blocks, which on some have 128 tokens.
_LEAST = 320
_NO_SALT = (
    "prompts of one tenant are found again by all others, who can tell by the time what was asked: "
    "give each tenant an engine of its own where that matters"
)


def was_cached(answer: Sample, cold: Sample | None, part: float = 0.5) -> bool:
    """Whether at least a `part` of the prompt was there already.

    That is told, or it came sooner than `cold`, which is an answer to a prompt that was not; None where
    what is told is to be believed.
    """
    if cold is not None:
        return answer.waited < _SOONER * cold.waited
    return (answer.cached_tokens or 0) >= part * max(1, answer.prompt_tokens or 1)


async def check_told(patient: Patient) -> Finding:
    """Whether an answer says how much of its prompt was cached."""
    check = "cached tokens"
    prompt = patient.text(patient.words_for(0.3, least=_LEAST))
    first, second = await patient.chat(prompt), await patient.chat(prompt)
    if second.cached_tokens:
        patient.tells_cached_tokens = True
        found = f"told ({second.cached_tokens} of {second.prompt_tokens} the second time)"
        return Finding(check, "ok", found, facts={"tells_cached_tokens": True})
    patient.tells_cached_tokens = False
    facts = {"tells_cached_tokens": False}
    seems = was_cached(second, first)
    advice = "what is cached is estimated, and no answer can show what was saved"
    if seems:
        found = "hidden: the second answer came sooner, and tells none"
        advice += (
            "; vLLM tells with --enable-prompt-tokens-details, SGLang with --enable-cache-report"
        )
        return Finding(check, "missing", found, advice, facts)
    found = "none told, and none to be seen"
    return Finding(
        check, "missing", found, f"prefixes are computed again each time; {advice}", facts
    )


@dataclass(frozen=True, slots=True)
class Salted:
    """One prompt: asked first, again with the same salt, and with another."""

    cold: Sample
    same: Sample
    other: Sample


async def check_salt(patient: Patient) -> Finding:
    """Whether what was computed with one `cache_salt` is not found with another."""
    check, told = "cache salt", bool(patient.tells_cached_tokens)
    count = 1 if told and patient.quick else 3
    try:
        tried = [await _salted(patient, number) for number in range(count)]
    except RefusedError as refused:
        return Finding(check, "missing", f"refused ({refused})", _NO_SALT, {"salt_isolates": False})
    if told:
        same = all(was_cached(each.same, None) for each in tried)
        other = any(was_cached(each.other, None, 0.2) for each in tried)
    else:
        cold, again, foreign = (_median(answers) for answers in _columns(tried))
        same = again < _SOONER * cold
        other = foreign < (cold + again) / 2
    if not same:
        return Finding(check, "unknown", "not known: nothing is found again, whatever the salt")
    how = "by the tokens told" if told else "by the time"
    if other:
        found = f"ignored: another salt finds the same prompt ({how})"
        return Finding(check, "missing", found, _NO_SALT, {"salt_isolates": False})
    return Finding(check, "ok", f"isolates ({how})", facts={"salt_isolates": True})


async def _salted(patient: Patient, number: int) -> Salted:
    prompt = patient.text(patient.words_for(0.3, least=_LEAST))
    ours, others = f"doctor-{number}-a", f"doctor-{number}-b"
    return Salted(
        await patient.chat(prompt, cache_salt=ours),
        await patient.chat(prompt, cache_salt=ours),
        await patient.chat(prompt, cache_salt=others),
    )


def _columns(tried: Sequence[Salted]) -> tuple[list[Sample], list[Sample], list[Sample]]:
    return [e.cold for e in tried], [e.same for e in tried], [e.other for e in tried]


def _median(answers: Sequence[Sample]) -> float:
    return median(answer.waited for answer in answers)
