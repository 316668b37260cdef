"""The texts that open sessions hold: bounded together, whoever's they are."""

from parrot_backend.wire.errors import OverloadedError


class SessionTexts:
    """Counts bytes, of which there may be `most`; what comes while there are more is refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def check(self) -> None:
        """Look whether there is room for more.

        Raises:
            OverloadedError: there is none.
        """
        if self._held >= self._most:
            raise OverloadedError(
                f"the open sessions hold {self._held} bytes, more than the {self._most} that this "
                "server keeps: close some (DELETE /v1/sessions/{id}) or try again later"
            )

    def change(self, by: int) -> None:
        """A session holds so many more, or less."""
        self._held += by
