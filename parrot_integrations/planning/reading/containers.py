"""Methods of lists and dicts. A reading changes only what the function made itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from parrot_integrations.planning.reading.kinds import (
    Iterated,
    has_plain_keys,
    is_constant,
    is_plain,
    items_of,
    named,
)
from parrot_integrations.planning.reading.operations import applied
from parrot_integrations.planning.reading.problems import UnreadableError


class Owned:
    """The containers that a reading made, by identity."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def add(self, container: Any) -> Any:
        """Note one that is new; gives it back."""
        self._kept[id(container)] = container
        return container

    def changing(self, container: Any) -> Any:
        """One that is about to be changed.

        Raises:
            UnreadableError: the function was given it.
        """
        if id(container) not in self._kept:
            raise UnreadableError(f"changes {named(container)} that it was given")
        return container

    def assign(self, container: Any, key: Any, value: Any) -> None:
        """`container[key] = value`."""
        self.changing(container)
        if type(container) is dict and has_plain_keys(container) and is_constant(key):
            container[key] = value
        elif type(container) is list and type(key) is int:
            applied(list.__setitem__, container, key, value)
        else:
            raise UnreadableError(f"sets an item of {named(container)}")


def container_method(
    owned: Owned, value: Any, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Any:
    """What a method of a list, tuple or dict gives.

    Raises:
        UnreadableError: it is none that can be read.
    """
    method = _METHODS.get((type(value), name))
    if method is None or keywords:
        raise UnreadableError(f"calls `{name}` of {named(value)}")
    try:
        return method(owned, value, *arguments)
    except TypeError:
        raise UnreadableError("raises TypeError") from None


def _get(owned: Owned, value: dict[Any, Any], key: Any, default: Any = None, /) -> Any:
    if not has_plain_keys(value) or not is_constant(key):
        raise UnreadableError("looks for something in a dict")
    return value.get(key, default)


def _items(owned: Owned, value: dict[Any, Any], /) -> Iterated:
    return Iterated(list(value.items()))


def _keys(owned: Owned, value: dict[Any, Any], /) -> Iterated:
    return Iterated(list(value))


def _values(owned: Owned, value: dict[Any, Any], /) -> Iterated:
    return Iterated(list(value.values()))


def _copy(owned: Owned, value: Any, /) -> Any:
    return owned.add(value.copy())


def _update(owned: Owned, value: dict[Any, Any], other: Any, /) -> None:
    owned.changing(value)
    if type(other) is not dict or not has_plain_keys(other) or not has_plain_keys(value):
        raise UnreadableError(f"updates by {named(other)}")
    value.update(other)


def _append(owned: Owned, value: list[Any], item: Any, /) -> None:
    owned.changing(value).append(item)


def _extend(owned: Owned, value: list[Any], items: Any, /) -> None:
    owned.changing(value).extend(items_of(items))


def _insert(owned: Owned, value: list[Any], index: Any, item: Any, /) -> None:
    if type(index) is not int:
        raise UnreadableError("inserts somewhere")
    owned.changing(value).insert(index, item)


def _index(owned: Owned, value: Any, item: Any, /) -> Any:
    return _searched(value.index, value, item)


def _count(owned: Owned, value: Any, item: Any, /) -> Any:
    return _searched(value.count, value, item)


def _searched(method: Any, value: Any, item: Any) -> Any:
    if not is_plain(value) or not is_plain(item):
        raise UnreadableError(f"looks for something in {named(value)}")
    return applied(method, item)


_METHODS: dict[tuple[type, str], Any] = {
    (dict, "get"): _get,
    (dict, "items"): _items,
    (dict, "keys"): _keys,
    (dict, "values"): _values,
    (dict, "copy"): _copy,
    (dict, "update"): _update,
    (list, "append"): _append,
    (list, "extend"): _extend,
    (list, "insert"): _insert,
    (list, "copy"): _copy,
    (list, "index"): _index,
    (list, "count"): _count,
    (tuple, "index"): _index,
    (tuple, "count"): _count,
}
