"""What rules may look into: plain containers, whose methods are nobody's code but Python's."""

from typing import Any

from langchain_core.runnables.utils import AddableDict

from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import BreakError, Unknown, need


def is_dict(value: Any) -> bool:
    """Whether it is a dict, and not of a class of somebody's own."""
    return type(value) in (dict, AddableDict)


def as_dict(value: Any) -> dict[str, Any]:
    """A dict whose values may be symbolic.

    Raises:
        BreakError: it is something else.
        NotYetError: it is not known yet.
    """
    if isinstance(value, JsonValue) and (keys := value.keys()) is not None:
        return {key: value.item(key) for key in keys}
    if isinstance(value, Unknown):
        need(value)
    if not is_dict(value):
        raise BreakError("gets something that is not a dict")
    return dict(value)
