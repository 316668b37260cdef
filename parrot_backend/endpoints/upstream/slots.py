"""`Slots`: which of llama.cpp's slots a job runs in, so that a prefix stays on its slot."""

import asyncio
import time
from dataclasses import dataclass
from itertools import chain

from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest

_LEAST = 64


@dataclass(slots=True)
class _Slot:
    text: str = ""
    tenant: str = ""
    busy: bool = False
    used: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A slot of `slots`, and whether what it has cached may be used: it is of the same tenant."""

    slots: "Slots"
    number: int
    reuse: bool

    def free(self) -> None:
        """The job in it has ended."""
        self.slots.free(self.number)


class Slots:
    """Remembers what each slot has last computed; of free ones, that with the longest common beginning
    is taken, and of equal ones that which was not used for the longest time."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._freed = asyncio.Event()

    async def take(self, request: LLMRequest, tenant: str) -> Placed:
        """A slot for a job; where all are busy, when one is free: else the server would choose."""
        while (placed := self._taken(request, tenant)) is None:
            self._freed.clear()
            await self._freed.wait()
        return placed

    def free(self, number: int) -> None:
        """The job in a slot has ended."""
        slot = self._slots[number]
        slot.busy, slot.used = False, time.monotonic()
        self._freed.set()

    def _taken(self, request: LLMRequest, tenant: str) -> Placed | None:
        text = text_of(request)
        free = [(i, slot) for i, slot in enumerate(self._slots) if not slot.busy]
        if not free:
            return None
        number, slot = max(free, key=lambda s: (_shared(s[1], text, tenant), -s[1].used))
        reuse = slot.tenant == tenant
        slot.text, slot.tenant, slot.busy = text, tenant, True
        return Placed(self, number, reuse)


def text_of(request: LLMRequest) -> str:
    """A prompt's text, as far as beginnings are compared by it."""
    if isinstance(request, PromptRequest):
        prompt = request.prompt
        return prompt if isinstance(prompt, str) else ",".join(map(str, prompt))
    tools = (tool.model_dump_json() for tool in request.tools or ())
    texts = (part for m in request.messages for part in (m.role, "\0", m.content, "\0"))
    return "".join(chain(tools, texts))


def common_length(one: str, other: str) -> int:
    """Of what both begin with: found by halves, as comparing is quick and counting is not."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _shared(slot: _Slot, text: str, tenant: str) -> int:
    """Characters that the slot spares; little is none, for more than it would be lost by it."""
    if slot.tenant != tenant:
        return 0
    shared = common_length(slot.text, text)
    return shared if 2 * shared >= min(len(slot.text), len(text)) and shared >= _LEAST else 0
