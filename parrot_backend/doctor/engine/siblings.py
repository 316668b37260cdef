"""What siblings share: eight prompts with a long common beginning that nobody has computed.

They are sent all at once; then, with another beginning, one first and seven behind it; then one by one.
The first way in which most of the beginning is computed once is the engine's. Where cached tokens are
not told, the time until all have begun is compared with that of one prompt alone, twice; what lies
between clearly shared and clearly not is not known.
"""

import asyncio
from statistics import median

from parrot_backend.doctor.engine.caching import was_cached
from parrot_backend.doctor.engine.patient import Patient, Sample
from parrot_backend.doctor.findings import Finding

CHECK = "siblings"
SIBLINGS = 8
# So many of those that could find it have to.
_MOST = 0.7
# Times of one prompt alone that eight take which share, and which don't: of four slots, four or three.
_SHORT, _LONG = 2.0, 2.6


async def check(patient: Patient) -> Finding:
    """See the module."""
    words = patient.words_for(0.4 if patient.quick else 0.8, least=400)
    together = await _shares(patient, words, first=0)
    if together is None:
        return _unknown("all at once")
    if together:
        return Finding(CHECK, "ok", f"share in one batch{together}", facts={"sharing": "batch"})
    behind = await _shares(patient, words, first=1)
    if behind is None:
        return _unknown("behind the first")
    if behind:
        return Finding(
            CHECK,
            "missing",
            f"share what is computed before they start{behind}, not what is sent together",
            "where nobody has computed their beginning, Parrot sends one first and the rest after it",
            {"sharing": "computed"},
        )
    cold, *later = [await patient.chat(prompt) for prompt in _prompts(patient, words, 3)]
    if all(was_cached(each, None if patient.tells_cached_tokens else cold) for each in later):
        return Finding(
            CHECK,
            "missing",
            "share only one after the other, in the slot that has their beginning",
            "siblings take turns on one slot where that ends sooner than computing all in parallel",
            {"sharing": "slot"},
        )
    advice = "each sibling computes the whole beginning: switch prefix caching on"
    found = "share nothing, not even one after the other"
    return Finding(CHECK, "missing", found, advice, {"sharing": None})


async def _shares(patient: Patient, words: int, first: int) -> str | None:
    """How that most share is seen, empty where they don't, None where it can't be told.

    `first` of them are computed before the others are sent.
    """
    if not patient.tells_cached_tokens:
        return await _shares_by_time(patient, words, first)
    _, answers = await _wave(patient, words, first)
    found = sum(was_cached(answer, None) for answer in answers)
    if found < _MOST * (SIBLINGS - 1):
        return ""
    cached = sum(answer.cached_tokens or 0 for answer in answers)
    return (
        f" ({cached} of {sum(answer.prompt_tokens or 0 for answer in answers)} tokens were cached)"
    )


async def _shares_by_time(patient: Patient, words: int, first: int) -> str | None:
    alone, all_begun = [], []
    for _ in range(2):
        alone.append((await patient.chat(patient.text(words))).waited)
        cold, answers = await _wave(patient, words, first)
        alone += [answer.waited for answer in cold]
        begun = max(each.first for each in answers) - min(each.began for each in answers)
        all_begun.append(begun)
    ratio = min(all_begun) / median(alone)
    if _SHORT < ratio < _LONG:
        return None
    return f" ({ratio:.1f} times as long as one alone)" if ratio <= _SHORT else ""


async def _wave(patient: Patient, words: int, first: int) -> tuple[list[Sample], list[Sample]]:
    """Siblings: those that go before the others, one by one, and the others, all at once."""
    prompts = _prompts(patient, words, SIBLINGS)
    before = [await patient.chat(prompt) for prompt in prompts[:first]]
    return before, list(await asyncio.gather(*map(patient.chat, prompts[first:])))


def _unknown(how: str) -> Finding:
    found = f"not known: sent {how}, they take longer than if they shared and shorter than if not"
    return Finding(CHECK, "unknown", found, "its kind's prior is used")


def _prompts(patient: Patient, words: int, count: int) -> list[str]:
    beginning = patient.text(words)
    return [f"{beginning}\n\nQuestion {number}: which word was it?" for number in range(count)]
