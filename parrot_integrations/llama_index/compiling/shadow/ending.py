"""How a shadow ends before its code does."""

from parrot_integrations.planning.values import Break


class ShadowEnd(BaseException):
    """The code needs what only the run will tell, or is not the framework's own.

    Args:
        where: what needs it.
        reason, remedy: as in `Break`.
    """

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"{where} {reason}")
        self.stop = Break(where, reason, remedy)
