"""How long to wait before a child is started again."""


class Backoff:
    """Delays in seconds: from `first`, doubled each time, up to `most`.

    What was ready for `steady` seconds did not fail by its start, and the next one begins as if it
    were the first.
    """

    def __init__(self, first: float = 0.5, most: float = 30.0, steady: float = 60.0) -> None:
        self._first = first
        self._most = most
        self._steady = steady
        self._last = 0.0

    def after(self, lived: float) -> float:
        """The delay behind a child that was ready for `lived` seconds; 0 where it never was."""
        again = 0.0 if lived >= self._steady else 2 * self._last
        self._last = min(max(again, self._first), self._most)
        return self._last
