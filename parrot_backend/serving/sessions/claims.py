"""Claims: planned calls by what they ask for, each handed over once to a request that is equal."""

from collections import deque

from parrot_backend.serving.call import Call


class Claims:
    """The rendered planned calls of one session, by their claim keys."""

    def __init__(self) -> None:
        self._calls: dict[str, deque[Call]] = {}

    def offer(self, key: str, call: Call) -> None:
        """A request with this key may have the call."""
        self._calls.setdefault(key, deque()).append(call)

    def take(self, key: str) -> Call | None:
        """The first that is left for this key.

        A failed or cancelled prediction is no answer: the request has to run.
        """
        calls = self._calls.get(key, deque())
        while calls:
            call = calls.popleft()
            if not calls:
                del self._calls[key]
            if call.state in ("queued", "running", "done"):
                return call
        return None

    def clear(self) -> None:
        """Nobody can claim any more."""
        self._calls.clear()
