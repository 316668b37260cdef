"""The values of a session's Semantic Variables: each is written once, waited for by many."""

import asyncio

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
    """Named values of one session; belongs to one event loop."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.errors: dict[str, ParrotError] = {}
        self.readers = 0
        self._characters = 0
        self._settled: dict[str, asyncio.Event] = {}

    def declare(self, name: str) -> None:
        """Make a variable known, without a value."""
        self._settled[name] = asyncio.Event()

    def __len__(self) -> int:
        return len(self._settled)

    def check(self, name: str, value: str) -> None:
        """Refuse what `write` would refuse.

        Raises:
            NotFoundError: there is no such variable.
            ConflictError: it has a value, or has failed.
            InvalidRequestError: the value is not valid Unicode, or the session has too much already.
        """
        if self._event(name).is_set():
            raise ConflictError(
                f"variable '{name}' is already set: a variable is written once",
                param="value",
                code="variable_set",
            )
        if self._characters + len(value) > MOST_CHARACTERS:
            raise InvalidRequestError(
                f"with '{name}' the variables of the session would come to more than "
                f"{MOST_CHARACTERS} characters: use several sessions",
                param="value",
                code="text_too_long",
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"the value of '{name}' is not valid Unicode: {error.reason} at {error.start}",
                param="value",
            ) from None

    def write(self, name: str, value: str) -> None:
        """Give a variable its value; it raises what `check` raises."""
        self.check(name, value)
        self.values[name] = value
        self._characters += len(value)
        self._event(name).set()

    def fail(self, name: str, error: ParrotError) -> None:
        """The variable will never have a value."""
        self.errors[name] = error
        self._event(name).set()

    async def read(self, name: str, timeout: float) -> str:
        """Wait for a value, at most `timeout` seconds.

        Raises:
            NotFoundError: there is no such variable.
            DeadlineError: the wait ran out.
            ParrotError: what made the variable fail.
        """
        settled = self._event(name)
        self.readers += 1
        try:
            await asyncio.wait_for(settled.wait(), timeout)
        except TimeoutError:
            raise DeadlineError(
                f"variable '{name}' had no value after {timeout:g} s: ask again, or with a longer "
                "timeout"
            ) from None
        finally:
            self.readers -= 1
        if name in self.errors:
            raise self.errors[name]
        return self.values[name]

    def view(self, name: str) -> VariableView:
        """How one variable stands."""
        self._event(name)
        if (error := self.errors.get(name)) is not None:
            return VariableView(name=name, state="failed", error=error.message)
        value = self.values.get(name)
        return VariableView(name=name, state="pending" if value is None else "ready", value=value)

    def views(self) -> list[VariableView]:
        """How all stand, in the order in which they were declared."""
        return [self.view(name) for name in self._settled]

    def _event(self, name: str) -> asyncio.Event:
        try:
            return self._settled[name]
        except KeyError:
            raise NotFoundError(
                f"there is no variable '{name}' in this session",
                param="name",
                code="variable_not_found",
            ) from None
