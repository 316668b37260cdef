"""What a server says of the engine that its child is to make."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Recipe:
    """The child calls `factory`, as `module:function`, with `options`, which JSON can have.

    The factory is the program's to choose; nothing that comes over a network names it.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    factory: str = "parrot_backend.endpoints.process.factories:torch_engine"
