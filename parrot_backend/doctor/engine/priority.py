"""Which priority is served first.

More prompts are sent at once than the engine can read in a step, half of them with one priority and
half with another, in random order. Which come out first is compared as Mann and Whitney do, over as
many waves as make it certain. Where all come out together, as of one step, an order that they still
have is one, but none is no sign that there is none: the next wave is twice as long.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from parrot_backend.doctor.engine.patient import Patient, RefusedError, Sample, now
from parrot_backend.doctor.findings import Finding

CHECK = "priority"
LOW, HIGH = 1, 10
OF_EACH = 4
# Standard deviations: more are chance once in seven hundred times, and as few are it mostly.
CERTAIN, ODD = 3.2, 1.6
MOST_WAVES = 8
_NO_ORDER = (
    "what a graph needs next can't overtake inside the engine: Parrot orders what it has not sent yet, "
    "and sends no more than the engine runs at once"
)


@dataclass(slots=True)
class Order:
    """What the waves say together: `lower_first` of `pairs` came out in that order."""

    lower_first: float = 0.0
    pairs: int = 0
    variance: float = 0.0

    def add(self, lower: Sequence[float], higher: Sequence[float]) -> None:
        """Count one wave: when the answers of each priority began."""
        n, m = len(lower), len(higher)
        self.lower_first += sum((a < b) + 0.5 * (a == b) for a in lower for b in higher)
        self.pairs += n * m
        self.variance += n * m * (n + m + 1) / 12

    @property
    def deviations(self) -> float:
        """From what chance would have; above 0 where the lower number goes first."""
        if not self.variance:
            return 0.0
        return (self.lower_first - self.pairs / 2) / math.sqrt(self.variance)

    @property
    def is_odd(self) -> bool:
        """Whether more waves may say more."""
        return abs(self.deviations) > ODD


async def check(patient: Patient) -> Finding:
    """See the module."""
    deadline = now() + (15 if patient.quick else 40)
    order, waves, spread = Order(), 0, 0
    words, most = patient.words_for(0.15, least=256), patient.words_for(10)
    while waves < MOST_WAVES and (now() < deadline or waves < 2):
        began = now()
        try:
            lower, higher = await _wave(patient, words)
        except RefusedError as refused:
            return _refused(refused)
        waves += 1
        order.add([each.first for each in lower], [each.first for each in higher])
        if _is_spread([*lower, *higher], began):
            spread += 1
        else:
            words = min(most, 2 * words)
        if abs(order.deviations) > CERTAIN or (spread > 1 and not order.is_odd):
            break
    return _told(order, waves, spread)


async def _wave(patient: Patient, words: int) -> tuple[list[Sample], list[Sample]]:
    """Both priorities' answers; one request before them keeps the engine busy until all are there."""
    before = asyncio.create_task(patient.chat(patient.text(words)))
    try:
        await asyncio.sleep(0.03)
        wanted = [LOW, HIGH] * OF_EACH
        random.shuffle(wanted)
        answers = await asyncio.gather(
            *(patient.chat(patient.text(words), priority=number) for number in wanted)
        )
        await before
    finally:
        before.cancel()
    told = list(zip(wanted, answers, strict=True))
    return [a for number, a in told if number == LOW], [a for number, a in told if number == HIGH]


def _is_spread(answers: Sequence[Sample], began: float) -> bool:
    """Whether they came one after the other, and not all at the end of one step."""
    firsts = sorted(answer.first for answer in answers)
    return firsts[-1] - firsts[0] > 0.35 * (firsts[-1] - began)


def _refused(refused: RefusedError) -> Finding:
    return Finding(
        CHECK, "missing", f"refused ({refused})", _NO_ORDER, {"priority_order": "refused"}
    )


def _told(order: Order, waves: int, spread: int) -> Finding:
    came = f"{order.lower_first:.0f} of {order.pairs} pairs, {waves} waves"
    if order.deviations > CERTAIN:
        return Finding(CHECK, "ok", f"lower first ({came})", "", {"priority_order": "lower"})
    if order.deviations < -CERTAIN:
        return Finding(CHECK, "ok", f"higher first ({came})", "", {"priority_order": "higher"})
    if order.is_odd:
        return Finding(CHECK, "unknown", f"not certain (lower first in {came})", "try again")
    if spread < 2:
        found = "not known: the engine takes all that was sent at once"
        return Finding(CHECK, "unknown", found, "the prior of its kind is used")
    found = f"not obeyed (lower first in {came})"
    return Finding(CHECK, "missing", found, _NO_ORDER, {"priority_order": "ignored"})
