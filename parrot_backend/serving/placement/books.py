"""`Book`: what runs on one engine, what that is likely to take, and what it has computed."""

from dataclasses import dataclass, field

from parrot_backend.serving.placement.blocks import BLOCK_TOKENS, common, leading
from parrot_backend.serving.placement.mirror import PrefixMirror, SlotMirror
from parrot_backend.serving.placement.speed import Speed
from parrot_backend.serving.placement.views import EngineView, PlacedCall

_LEAST_LEFT = 0.1  # of what a call was expected to take, when it takes longer


@dataclass(slots=True, eq=False)
class Run:
    """A call that runs since `started`: `held` blocks were thought to be there, so it computes
    `tokens`.

    It is likely to take `seconds`. When it came `beside` ran, the mirror was `touches` old, and
    prompts of `behind` tokens, its own with them, were to be computed.
    """

    call: PlacedCall
    engine: str
    held: int
    tokens: float
    seconds: float
    beside: int
    started: float
    touches: int = 0
    behind: float = 0.0
    first: float | None = None


@dataclass(slots=True)
class Load:
    """Sums over calls that run: how many, prompt tokens that they compute, and their seconds."""

    calls: int = 0
    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, run: Run, sign: int = 1) -> None:
        """A run comes, or with -1 goes."""
        self.calls += sign
        self.tokens = self.tokens + sign * run.tokens if self.calls else 0.0
        self.seconds = self.seconds + sign * run.seconds if self.calls else 0.0


@dataclass(slots=True)
class Book:
    """See the module. Its tables hold what runs; the mirror is bounded by the engine's memory."""

    name: str
    sharing: str
    speed: Speed
    prefixes: PrefixMirror
    slots: SlotMirror | None
    runs: dict[PlacedCall, Run] = field(default_factory=dict)
    bulk: Load = field(default_factory=Load)
    chats: Load = field(default_factory=Load)
    pending: float = 0.0
    _computing: dict[int, dict[PlacedCall, None]] = field(default_factory=dict)
    _prompts: int = 0
    _last_first: float = 0.0

    @classmethod
    def of(cls, view: EngineView) -> "Book":
        """An empty one."""
        slots = SlotMirror(max(1, view.slots)) if view.sharing == "slot" else None
        speed = Speed(view.tokens_per_second, view.slots)
        return cls(view.name, view.sharing, speed, PrefixMirror(view.kv_tokens), slots)

    def meet(self, view: EngineView) -> None:
        """It has so many slots now; none is for a while, and those that it has keep what is in them."""
        if self.slots is not None and view.slots > 0:
            self.slots.most = view.slots

    def held(self, call: PlacedCall) -> int:
        """Blocks of a call that it needn't compute if it comes now."""
        if self.slots is not None:
            return self.slots.held(call.blocks)
        stands = self.prefixes.held(call.blocks)
        return max(stands, self._in_hand(call)) if self.sharing == "batch" else stands

    def leader(self, call: PlacedCall) -> tuple[Run, int] | None:
        """Who has to come to something first for a call to find more, and how many blocks then."""
        if self.slots is not None:
            found = [(common(run.call.blocks, call.blocks), run) for run in self.runs.values()]
            blocks, run = max(found, key=lambda pair: pair[0], default=(0, None))
            return (run, blocks) if run is not None and blocks else None
        blocks = self._in_hand(call) if self.sharing == "computed" else 0
        if not blocks:
            return None
        return self.runs[next(iter(self._computing[call.blocks[blocks - 1]]))], blocks

    def left(self, run: Run, now: float) -> float:
        """Seconds until a run ends, or for one whose prefix is waited for, has its first token."""
        expected = self._expected(run)
        return max(run.started + expected - now, _LEAST_LEFT * expected, self.late(run, now))

    def late(self, run: Run, now: float) -> float:
        """Seconds that this is overdue. It is likely to take as long again: so who hangs is waited for
        less and less gladly."""
        return max(0.0, now - run.started - self._expected(run))

    def stalled(self, now: float) -> float:
        """Seconds by which even the run that came last is overdue: nothing ends here."""
        newest = next(reversed(self.runs.values()), None)
        return 0.0 if newest is None else max(0.0, now - newest.started - newest.seconds)

    def _expected(self, run: Run) -> float:
        return self.speed.prefill(run.behind) if self.slots is None else run.seconds

    def load(self, call: PlacedCall) -> Load:
        """That of its kind."""
        return self.chats if call.interactive else self.bulk

    def start(self, run: Run) -> None:
        """It runs here from now on."""
        run.touches, run.behind = self.prefixes.touches, self.pending + run.tokens
        self.runs[run.call] = run
        self.load(run.call).add(run)
        self._prompts += 1
        self.pending += run.tokens
        for block in run.call.blocks:
            self._computing.setdefault(block, {})[run.call] = None
        if self.slots is not None:
            self.slots.take(run.call.blocks)

    def first_token(self, run: Run, now: float, told: float | None) -> None:
        """Its prompt is computed; it had so many tokens, where that is told."""
        run.first = now
        self._computed(run)
        had = run.held * BLOCK_TOKENS if told is None else told
        self.speed.prefilled(run.call.tokens - had, now - max(run.started, self._last_first))
        self._last_first = now
        if told is not None:
            self._correct(run, told)
        self.prefixes.touch(run.call.blocks, run.call.tokens % BLOCK_TOKENS)

    def end(self, run: Run, now: float, answer_tokens: float, told: float | None) -> None:
        """It runs no longer; it had so many tokens, where only now that is told."""
        if run.first is None:
            self._computed(run)
        else:
            if told is not None:
                self._correct(run, told)
            beside = (run.beside + len(self.runs)) / 2
            self.speed.decoded(answer_tokens - 1, now - run.first, beside)
            self.prefixes.touch((), answer_tokens)
        del self.runs[run.call]
        self.load(run.call).add(run, -1)
        if self.slots is not None:
            self.slots.leave(run.call.blocks if run.first is not None else ())

    def _correct(self, run: Run, told: float) -> None:
        """What was thought to be there, by what is told."""
        blocks = min(int(told) // BLOCK_TOKENS, len(run.call.blocks))
        self.prefixes.correct(run.call.blocks, run.held, blocks, run.touches)

    def _in_hand(self, call: PlacedCall) -> int:
        return leading(call.blocks, self._computing)

    def _computed(self, run: Run) -> None:
        self._prompts -= 1
        self.pending = self.pending - run.tokens if self._prompts else 0.0
        for block in run.call.blocks:
            calls = self._computing[block]
            del calls[run.call]
            if not calls:
                del self._computing[block]
