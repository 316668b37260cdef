"""What a reading asks the framework whose objects a function uses."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Framework(Protocol):
    """Each answers `NotImplemented` for what is none of its business."""

    def takes(self, value: Any) -> bool:
        """Whether a function may take this from outside, though it is no constant."""

    def attribute(self, value: Any, name: str) -> Any:
        """What an attribute of a value is, such as a message's content."""

    def item(self, value: Any, key: Any) -> Any:
        """What an item of a value is."""

    def operation(self, symbol: str, left: Any, right: Any) -> Any:
        """What a binary operator gives."""

    def method(
        self, value: Any, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Any:
        """What a method gives, such as a step's `invoke`."""

    def call(self, function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What calling something gives, such as a class of messages."""
