"""Tool calls in the wire's form, as they are written and as they come in pieces."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def wire_call(call_id: str | None, name: str, arguments: str | Mapping[str, Any]) -> dict[str, Any]:
    """A call; arguments that are text are sent as the model wrote them."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


class StreamedCalls:
    """The calls of a streamed answer so far."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Join pieces to their calls, in the order in which they come."""
        for piece in pieces:
            function = piece.get("function") or {}
            arguments = function.get("arguments") or ""
            call = self._calls.get(index := piece.get("index", 0))
            if call is None:
                self._calls[index] = wire_call(
                    piece.get("id"), function.get("name") or "", arguments
                )
            else:
                call["function"]["arguments"] += arguments

    def indexed(self) -> dict[int, dict[str, Any]]:
        """The calls by their indices, each as far as it is there."""
        return {
            index: {**call, "function": dict(call["function"])}
            for index, call in self._calls.items()
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.indexed().values())
