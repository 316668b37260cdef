"""Errors as they cross from one process to another."""

from dataclasses import dataclass

from parrot_backend.wire import errors
from parrot_backend.wire.errors import EngineError, ParrotError

# By name, so that a process which has gone wrong can raise nothing else here.
_CLASSES: dict[str, type[ParrotError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, ParrotError)
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A `ParrotError`: the nearest of its classes that every process knows, and what it says."""

    name: str
    message: str
    param: str | None = None
    code: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> "Trouble":
        """An error's; what isn't a `ParrotError` is the engine's failure."""
        if not isinstance(error, ParrotError):
            return cls(EngineError.__name__, f"the engine failed: {error!r}")
        names = (base.__name__ for base in type(error).__mro__)
        name = next(name for name in names if name in _CLASSES)
        # A message may quote what is no valid text.
        message = error.message.encode(errors="replace").decode()
        return cls(name, message, error.param, error.code)

    def error(self) -> ParrotError:
        """It again, as an error."""
        error = _CLASSES.get(self.name, EngineError)
        return error(self.message, param=self.param, code=self.code)
