"""JSON schemas as grammars are made of them."""

from collections.abc import Iterator
from typing import Any

_ANNOTATIONS = {"title", "description", "default", "examples", "$comment", "deprecated"}
_OF_SCHEMAS = {"properties", "patternProperties", "$defs", "definitions"}
_LISTS_OF_SCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_SCHEMAS = {"items", "additionalProperties", "not", "if", "then", "else", "contains"}

# What can add to the properties of an object, or takes away when it is narrower itself.
_COMPOSING = {"$ref", "anyOf", "oneOf", "allOf", "not", "if", "dependentSchemas"}
_ALWAYS_COMPOSING = {"allOf", "not", "if", "dependentSchemas"}


def narrowed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without annotations, and without properties that it allows but does not name.

    By JSON Schema an object may have any further property, and a small model makes some up. Whatever
    matches the result matches the schema. Objects are closed as XGrammar does in its strict mode, but
    none where a schema is composed of others, which closed ones could contradict.
    """
    close = not any(_is_composed(part) for part in _parts(schema))
    narrow: dict[str, Any] = _narrowed(schema, close=close)
    return narrow


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all that it is made of."""
    if isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            for part in _children(key, value):
                yield from _parts(part)


def _children(key: str, value: Any) -> list[Any]:
    if key in _OF_SCHEMAS and isinstance(value, dict):
        return list(value.values())
    if key in _LISTS_OF_SCHEMAS and isinstance(value, list):
        return value
    return [value] if key in _SCHEMAS else []


def _is_composed(part: dict[str, Any]) -> bool:
    return bool(part.keys() & _ALWAYS_COMPOSING) or (
        "properties" in part and bool(part.keys() & _COMPOSING)
    )


def _narrowed(schema: Any, *, close: bool) -> Any:
    if not isinstance(schema, dict):
        return schema
    narrow = {k: _mapped(k, v, close) for k, v in schema.items() if k not in _ANNOTATIONS}
    if close and "properties" in schema and "patternProperties" not in schema:
        narrow.setdefault("additionalProperties", False)
    return narrow


def _mapped(key: str, value: Any, close: bool) -> Any:
    if key in _OF_SCHEMAS and isinstance(value, dict):
        return {name: _narrowed(part, close=close) for name, part in value.items()}
    if key in _LISTS_OF_SCHEMAS and isinstance(value, list):
        return [_narrowed(part, close=close) for part in value]
    return _narrowed(value, close=close) if key in _SCHEMAS else value
