"""What strings and JSON may be, so that whatever is made of them can be written and sent.

JSON can name halves of characters (`"\\ud800"`), which are no text: UTF-8 can't write them, and the
tokenizer can't read them. And it can be nested deeper than what walks it can go. Both are refused where
they come in.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator

DEEPEST_JSON = 64
"""Levels of objects and arrays that a schema, or the arguments of a call, may have."""

_TOO_DEEP = f"the JSON is nested more than {DEEPEST_JSON} levels deep"


def checked_text(text: str) -> str:
    """The text.

    Raises:
        ValueError: it has a lone surrogate.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"it is not valid Unicode: a lone surrogate is at {error.start}"
            ) from None
    return text


def checked_json(value: Any) -> Any:
    """What JSON was parsed to.

    Raises:
        ValueError: it is nested too deep, or a string in it has a lone surrogate.
    """
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [part for whole in level for part in _parts(whole)]
    if any(isinstance(part, dict | list) for part in level):
        raise ValueError(_TOO_DEEP)
    for part in level:
        _parts(part)
    return value


def checked_json_text(text: str) -> str:
    """A text that may be JSON; what isn't is for others to judge.

    Raises:
        ValueError: it has a lone surrogate, or is JSON that `checked_json` refuses.
    """
    checked_text(text)
    try:
        value = json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    checked_json(value)
    return text


def _parts(value: Any) -> list[Any]:
    if isinstance(value, str):
        checked_text(value)
    elif isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _either(value: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
    return checked_json_text(value) if isinstance(value, str) else checked_json(value)


Unicode = Annotated[str, AfterValidator(checked_text)]
JsonText = Annotated[str, AfterValidator(checked_json_text)]
JsonObject = Annotated[dict[str, Any], AfterValidator(checked_json)]
# One check around a union, for errors in it would be named after its members.
JsonObjectOrText = Annotated[dict[str, Any] | str | None, AfterValidator(_either)]
