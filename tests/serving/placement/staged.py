"""Calls and engines that are made up, and a clock that somebody turns."""

from itertools import count
from typing import Any

from parrot_backend.serving.placement.placement import Placement
from parrot_backend.serving.placement.views import EngineView, PlacedCall

_ids = count()


class Clock:
    """Seconds, as told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_call(path: str = "", tokens: int | None = None, tenant: str = "", **more: Any) -> PlacedCall:
    """A prompt of a block for each letter, those before it counted in; what is more has no block."""
    blocks = tuple(hash((tenant, path[: end + 1])) for end in range(len(path)))
    return PlacedCall(
        f"{path} {next(_ids)}", tenant, blocks, 64 * len(path) if tokens is None else tokens, **more
    )


class Fleet:
    """Engines under a placement, with what runs on them."""

    def __init__(self, *engines: EngineView, seed: int = 0) -> None:
        self.clock = Clock()
        self.placement = Placement(seed, self.clock)
        self.engines = {engine.name: engine for engine in engines}
        self.running: dict[PlacedCall, str] = {}

    @property
    def views(self) -> list[EngineView]:
        """As they stand."""
        return [self._view(engine) for engine in self.engines.values()]

    def ask(self, call: PlacedCall) -> str | None:
        """Where it goes; if anywhere it is started there."""
        if (name := self.placement.choose(call, self.views)) is not None:
            self.run(call, name)
        return name

    def run(self, call: PlacedCall, name: str) -> None:
        """It runs there, chosen or not."""
        self.placement.started(call, self._view(self.engines[name]))
        self.running[call] = name

    def first(self, call: PlacedCall, **told: int) -> list[PlacedCall]:
        """Its first token comes."""
        return self.placement.first_token(call, **told)

    def end(self, call: PlacedCall, answer: float = 0.0) -> list[PlacedCall]:
        """It ends, wherever it is."""
        self.running.pop(call, None)
        return self.placement.ended(call, answer)

    def warm(self, call: PlacedCall, name: str) -> None:
        """An engine has computed its prompt."""
        self.run(call, name)
        self.first(call)
        self.end(call)

    def _view(self, engine: EngineView) -> EngineView:
        here = [call for call, name in self.running.items() if name == engine.name]
        return EngineView(
            engine.name,
            engine.slots,
            len(here),
            engine.sharing,
            engine.kv_tokens,
            engine.weight,
            engine.tokens_per_second,
            sum(call.interactive for call in here),
            engine.ready,
        )


def engine(name: str, slots: int = 8, **more: Any) -> EngineView:
    """One that has nothing to do."""
    return EngineView(name, slots, **more)
