"""The names of models: which members serve one, and what a tenant may know of it."""

from collections.abc import Iterable

from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import ConflictError, NotFoundError


class Names:
    """Which seats answer to a model's name or alias; made anew where there are others.

    Args:
        seats: in the operator's order, the first of which serves who names no model. Those that go
            come last, and have no name that another wants.
    """

    def __init__(self, seats: Iterable[Seat] = ()) -> None:
        self._seats = sorted(seats, key=lambda seat: seat.going)
        self._named: dict[str, list[Seat]] = {}
        for seat in self._seats:
            for name in (seat.model, *seat.member.aliases):
                self._named.setdefault(name, []).append(seat)

    def served(self, model: str | None, tenant: Tenant) -> str:
        """The name of the model that serves `model`; None is the first that there is.

        What a tenant may not use is not there for it.

        Raises:
            NotFoundError: it is not served.
        """
        seats = self._seats if model is None else self._named.get(model, ())
        for seat in seats:
            if seat.allows(tenant.name):
                return seat.model
        raise _not_served(model, list(self.of(tenant)))

    def first(self, tenant: Tenant) -> str | None:
        """The model that serves a tenant that names none, if any does."""
        return next((seat.model for seat in self._seats if seat.allows(tenant.name)), None)

    def of(self, tenant: Tenant) -> dict[str, str]:
        """All names that a tenant may use, each with its model's; models before their aliases."""
        own = [seat for seat in self._seats if seat.allows(tenant.name)]
        models = {seat.model: seat.model for seat in own}
        return models | {alias: seat.model for seat in own for alias in seat.member.aliases}

    def check(self, new: Seat) -> None:
        """Refuse a seat that would take a name from another model.

        Raises:
            ConflictError: which one.
        """
        aliases = new.member.aliases
        for name in (new.model, *aliases):
            for seat in self._named.get(name, ()):
                if seat.model != new.model and not seat.going and seat.name != new.name:
                    raise ConflictError(
                        _not_called(new, name, seat),
                        param="aliases" if name in aliases else "model",
                        code="alias_taken",
                    )


def check_own_names(seat: Seat) -> None:
    """Refuse a seat that has one name twice.

    Raises:
        ConflictError: which one.
    """
    aliases = seat.member.aliases
    for alias in aliases:
        if aliases.count(alias) > 1 or alias == seat.model:
            raise ConflictError(
                f"engine '{seat.name}' has the alias '{alias}' twice: give each name once",
                param="aliases",
                code="alias_taken",
            )


def aliases_of_others(seats: Iterable[Seat]) -> list[tuple[Seat, str, str]]:
    """The aliases that another model has: whose, which, and that in words.

    A model's name is its own, and an alias is that of the first in order, whoever came first. Those
    that go have no name that another wants.
    """
    seats = [seat for seat in seats if not seat.going]
    models = {seat.model: seat for seat in reversed(seats)}
    first: dict[str, Seat] = {}
    found = []
    for seat in seats:
        for alias in seat.member.aliases:
            other = models.get(alias) or first.setdefault(alias, seat)
            if other.model != seat.model:
                found.append((seat, alias, _not_called(seat, alias, other)))
    return found


def _not_called(seat: Seat, name: str, other: Seat) -> str:
    kind = "a model" if name == other.model else "an alias"
    return (
        f"engine '{seat.name}' can't be called '{name}': that is {kind} of engine '{other.name}', "
        f"which serves '{other.model}'. Give it another name"
    )


def _not_served(model: str | None, served: list[str]) -> NotFoundError:
    there = ", ".join(f"'{name}'" for name in served) or "none"
    what = "no model is served here" if model is None else f"model '{model}' is not served here"
    return NotFoundError(
        f"{what}: this server serves {there}. Leave the model out, name one of these, or add an engine",
        param="model",
        code="model_not_found",
    )
