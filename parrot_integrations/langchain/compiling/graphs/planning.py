"""How the runs of a compiled graph are planned."""

from dataclasses import dataclass

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.session import OnSession


@dataclass(frozen=True, slots=True)
class Planning:
    """What `compile` was told."""

    objective: Objective | None = None
    ahead: bool = True
    on_session: OnSession | None = None
