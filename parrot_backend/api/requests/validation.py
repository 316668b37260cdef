"""Validation of decoded JSON in pieces: the parts of what is big first, one by one."""

import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from parrot_backend.api.pieces import Steps

_SMALL = 500
_MOST_FAILURES = 20


def prepare(kind: Any, value: Any) -> Steps[None]:
    """Put into a large decoded value, in place, what its parts are validated to.

    `kind` is a model, or what a field of one may be. Its own validation then takes valid parts as they
    are; parts that are not valid stay, so that its error is the one that it would have been.
    """
    if _is_small(value):
        return
    kind = _bare(kind)
    if isinstance(value, list) and get_origin(kind) is list:
        yield from _prepare_elements(get_args(kind)[0], value)
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from prepare(field.annotation, value.get(name))


def _prepare_elements(kind: Any, values: list[Any]) -> Steps[None]:
    if _bare(kind) in (str, int, float):  # as fast as they can be in one go
        return
    failures = 0
    for index, element in enumerate(values):
        yield from prepare(kind, element)
        try:
            values[index] = _adapter(kind).validate_python(element)
        except ValidationError:
            failures += 1
        if failures > _MOST_FAILURES:  # it is refused anyway, and each of them costs
            del values[index + 1 :]
            return
        yield


def _is_small(value: Any) -> bool:
    """Whether it holds few values, and so is validated in about a millisecond."""
    count, left = 0, [value]
    while left:
        inside = list(_inside(left.pop()))
        if (count := count + len(inside)) > _SMALL:
            return False
        left += inside
    return True


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value) if isinstance(value, list) else iter(())


def _bare(kind: Any) -> Any:
    """A type without what is said of it, and without None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return _bare(kinds[0]) if len(kinds) == 1 else kind
    return kind


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
