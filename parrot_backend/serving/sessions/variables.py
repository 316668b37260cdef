"""The values of a session's Semantic Variables: each is written once, waited for by many."""

import asyncio
from collections.abc import Iterable, Iterator

from parrot_backend.wire.errors import (
    ConflictError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    ParrotError,
)
from parrot_backend.wire.views import VariableView

MOST_CHARACTERS = 2**25
"""Characters that the variables of one session hold together at most, whoever writes them."""


class Variables:
    """Named values of one session; belongs to one event loop.

    What is settled is told by `tell`, when what follows from it has been done: whoever learns a value
    finds the calls that were waiting for it rendered.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.errors: dict[str, ParrotError] = {}
        self.characters = 0
        self._names: dict[str, None] = {}
        self._untold: set[str] = set()
        self._waits: dict[str, set[asyncio.Future[None]]] = {}

    def declare(self, names: Iterable[str]) -> None:
        """Make variables known, without a value."""
        self._names.update(dict.fromkeys(names))

    def __len__(self) -> int:
        return len(self._names)

    def settled(self, name: str) -> bool:
        """Whether it has a value, or never will.

        Raises:
            NotFoundError: there is no such variable.
        """
        if name not in self._names:
            raise NotFoundError(
                f"there is no variable '{name}' in this session",
                param="name",
                code="variable_not_found",
            )
        return name in self.values or name in self.errors

    def check(self, name: str, value: str) -> None:
        """Refuse what `write` would refuse.

        Raises:
            NotFoundError: there is no such variable.
            ConflictError: it has a value, or has failed.
            InvalidRequestError: the value is not valid Unicode, or the session has too much already.
        """
        if self.settled(name):
            raise ConflictError(
                f"variable '{name}' is already set: a variable is written once",
                param="value",
                code="variable_set",
            )
        self.check_room(len(value), name)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"the value of '{name}' is not valid Unicode: {error.reason} at {error.start}",
                param="value",
            ) from None

    def check_room(self, characters: int, name: str) -> None:
        """Refuse so many characters more, where they would be too many.

        Raises:
            InvalidRequestError: they would.
        """
        if characters > self.room:
            raise InvalidRequestError(
                f"with '{name}' the variables of the session would come to more than "
                f"{MOST_CHARACTERS} characters: use several sessions",
                param="value",
                code="text_too_long",
            )

    def write(self, name: str, value: str) -> None:
        """Give a variable its value; it raises what `check` raises."""
        self.check(name, value)
        self._untold.add(name)
        self.values[name] = value
        self.characters += len(value)

    def fail(self, name: str, error: ParrotError) -> None:
        """The variable will never have a value."""
        self._untold.add(name)
        self.errors[name] = error

    def tell(self) -> None:
        """Let those go on that wait for what has been settled."""
        for name in self._untold:
            for wait in self._waits.pop(name, ()):
                if not wait.done():
                    wait.set_result(None)
        self._untold.clear()

    @property
    def names(self) -> list[str]:
        """All of them, in the order in which they were declared."""
        return list(self._names)

    @property
    def room(self) -> int:
        """Characters that may still be written."""
        return MOST_CHARACTERS - self.characters

    @property
    def readers(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waits)

    def is_waited_for(self, name: str) -> bool:
        """Whether somebody waits for this one."""
        return name in self._waits

    async def read(self, name: str, timeout: float) -> str:
        """Wait for a value, at most `timeout` seconds.

        Raises:
            NotFoundError: there is no such variable.
            DeadlineError: the wait ran out.
            ParrotError: what made the variable fail.
        """
        if not self.settled(name) or name in self._untold:
            await self._wait(name, timeout)
        if name in self.errors:
            raise self.errors[name]
        return self.values[name]

    async def _wait(self, name: str, timeout: float) -> None:
        wait = asyncio.get_running_loop().create_future()
        self._waits.setdefault(name, set()).add(wait)
        try:
            async with asyncio.timeout(timeout):
                await wait
        except TimeoutError:
            raise DeadlineError(
                f"variable '{name}' had no value after {timeout:g} s: ask again, or with a longer "
                "timeout"
            ) from None
        finally:
            if waits := self._waits.get(name):
                waits.discard(wait)
                if not waits:
                    del self._waits[name]

    def view(self, name: str) -> VariableView:
        """How one variable stands."""
        if not self.settled(name):
            return VariableView(name=name, state="pending")
        if (error := self.errors.get(name)) is not None:
            return VariableView(name=name, state="failed", error=error.message)
        return VariableView(name=name, state="ready", value=self.values[name])

    def views(self) -> Iterator[VariableView]:
        """How all stand, in the order in which they were declared."""
        return map(self.view, list(self._names))
