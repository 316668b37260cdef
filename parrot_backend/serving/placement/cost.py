"""What it costs to run a call on an engine, in seconds: its own, and those that it takes from others.

    own      wait for a place or a leader + prompt that isn't cached + answer at the batch's pace
    others   each that runs there: stands still for the prompt, and is slower beside one more
    again    a prompt that isn't cached also drives something out, and takes from those in the queue

Bulk counts less than what somebody waits for alone, so it keeps away from engines with interactive
calls; and an interactive call keeps away from bulk, whose next prompts would come in between its
tokens:

    engine with chats   |c|c|c|c|c|c|         a token each step
    engine with bulk    |cb|PROMPT|cb|cb|PROMPT|     as often as bulk ends and its next comes
"""

from parrot_backend.serving.placement.blocks import BLOCK_TOKENS
from parrot_backend.serving.placement.books import Book, Run
from parrot_backend.serving.placement.views import EngineView, PlacedCall

LEAST_WEIGHT = 1e-6

_BULK = 0.5  # a second of what nobody waits for alone, in seconds of what somebody does
_AGAIN = 0.75  # of a prefill, for what it drives out
_QUEUED = 4.0  # of a prefill, for each call that waits, and those that come while it does
_OVERLAP = 0.5  # of an answer, which those beside it still have
_FEWEST_BLOCKS = 1
_LEAST_SHARE = 1 / 8  # of what a call computes; for less it doesn't wait


def uncached(call: PlacedCall, blocks: int) -> float:
    """Tokens of a prompt to compute, the last one always."""
    return max(1.0, call.tokens - blocks * BLOCK_TOKENS)


def cost(
    view: EngineView,
    book: Book,
    call: PlacedCall,
    blocks: int,
    wait: float,
    parked: int,
    queue: float,
) -> float:
    """Of a call that comes after `wait` seconds and finds so many blocks, `parked` others with it.

    For each engine `queue` calls wait in the queue.
    """
    speed = book.speed
    prompt = speed.prefill(uncached(call, blocks))
    beside = min(view.slots, max(view.running, len(book.runs)) + parked)
    answer = call.answer_tokens * speed.token(min(beside + 1, view.slots))
    own = wait + prompt + answer
    if call.interactive:
        own += answer * _stalled(book)
    slower = prompt + call.answer_tokens * speed.each * _OVERLAP
    chats = min(view.interactive_running, beside)
    others = slower * (chats + _BULK * (beside - chats))
    return (own + others + (_AGAIN + _QUEUED * queue) * prompt) / max(view.weight, LEAST_WEIGHT)


def seconds(view: EngineView, book: Book, call: PlacedCall, blocks: int) -> float:
    """What it takes once it runs."""
    running = min(max(view.running, len(book.runs)) + 1, view.slots)
    speed = book.speed
    return speed.prefill(uncached(call, blocks)) + call.answer_tokens * speed.token(running)


def crowding(
    view: EngineView, book: Book, call: PlacedCall, held: int, others: int, blocks: int
) -> float:
    """What it costs those that follow a call, each, if they don't find room where it goes.

    Who doesn't waits for a place, or computes the blocks that they share somewhere else.
    """
    over = others + 1 - view.free
    if others <= 0 or over <= 0 or blocks <= 0:
        return 0.0
    wait = seconds(view, book, call, held) * over / max(1, 2 * view.slots)
    return min(wait, book.speed.prefill(blocks * BLOCK_TOKENS)) * over / (others + 1)


def wait_for_place(book: Book, places: int) -> float:
    """Seconds until so many places more are free: those that run end one after the other."""
    loads = (book.bulk, book.chats)
    running = max(sum(load.calls for load in loads), 1)
    return sum(load.seconds for load in loads) / running * places / running


def waiting_pays(call: PlacedCall, now: int, then: int, leader: Run) -> bool:
    """Whether to wait until a leader has computed blocks `now` to `then` of a call.

    It saves them. But if both came at once they would share the engine, and the leader computes more:

        leader  [shared......|own.....]        a call waits for all of it
        call    [shared......|o]

    So what the leader computes besides may be no more than what the call would.
    """
    saved = (then - now) * BLOCK_TOKENS
    if then - now < _FEWEST_BLOCKS or saved < _LEAST_SHARE * uncached(call, then):
        return False
    return leader.tokens - saved <= uncached(call, now)


def _stalled(book: Book) -> float:
    """The share of time that bulk's prompts are likely to take of the answers beside them."""
    bulk = book.bulk
    if not bulk.calls or bulk.seconds <= 0:
        return 0.0
    ends = bulk.calls / (bulk.seconds / bulk.calls)
    return min(1.0, ends * book.speed.prefill(bulk.tokens / bulk.calls))
