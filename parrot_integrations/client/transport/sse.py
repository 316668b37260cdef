"""Server-sent events of a streamed answer, decoded from bytes."""

import json
from collections.abc import Iterator
from typing import Any

from parrot_integrations.client.errors import BackendConnectionError, ServerError, error_from_detail

DONE = b"[DONE]"


class EventDecoder:
    """Takes the body's bytes as they come and gives back its JSON events.

    Lines end at a newline byte only: text decoders also split at U+2028 and its like, which JSON
    may carry unescaped.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._done = False

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The events that `chunk` completes.

        Raises:
            ParrotError: an event is an error, or is not JSON.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield from self._event()

    def finish(self) -> None:
        """To be called at the end of the body.

        Raises:
            BackendConnectionError: the stream ended before its `[DONE]`.
        """
        if not self._done:
            raise BackendConnectionError(
                "The backend ended the stream before the answer was complete."
            )

    def _event(self) -> Iterator[dict[str, Any]]:
        data, self._data = b"\n".join(self._data), []
        if data == DONE:
            self._done = True
            return
        event = _parse(data)
        if "error" in event:
            raise error_from_detail(event["error"])
        yield event


def _parse(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise ServerError(f"An event of the stream is not JSON: {data[:200]!r}") from error
    if not isinstance(event, dict):
        raise ServerError(f"An event of the stream is not an object: {data[:200]!r}")
    return event
