"""What goes wrong with an upstream, as our errors; its words are quoted, shortened, without the key."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from parrot_backend.endpoints.upstream.address import KEY_PLACES, Secret
from parrot_backend.wire.errors import (
    ContextLengthError,
    EndpointLostError,
    EngineError,
    InvalidRequestError,
    ParrotError,
)

_LONGEST_QUOTE = 500
_TOO_LONG = re.compile(
    r"context.length|context.size|max_model_len|maximum.(context|input|model)|exceed_context", re.I
)
LONGEST_RETRY_AFTER = 3600.0


class BusyError(Exception):
    """The upstream wants to be left alone for a while: `seconds`, where it says how long."""

    def __init__(self, why: str, seconds: float | None) -> None:
        super().__init__(why)
        self.why = why
        self.seconds = seconds


class RefusedError(Exception):
    """The upstream refuses the request: `error` tells it, unless a field that we added is to blame.

    `field` is the one of the body that the server points at; words can hold what a client has written.
    """

    def __init__(self, error: InvalidRequestError, field: str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.field = field


class ShutOutError(EngineError):
    """The upstream takes nothing from us, whatever it is, until somebody has done something."""


class KeyRefusedError(ShutOutError):
    """The upstream wants a key, or another one."""


class UnpaidError(ShutOutError):
    """Our account at the upstream has nothing left."""


def quoted(text: str, key: Secret | None) -> str:
    """A server's words as part of a message of ours, in one line."""
    text = text if key is None else key.hidden_in(text)
    text = text[: 4 * _LONGEST_QUOTE]
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


def error_in(body: Any) -> Mapping[str, Any]:
    """The part of a body that tells the error: OpenAI's, vLLM's older one, FastAPI's, or text."""
    if isinstance(body, dict):
        error = body.get("error", body)
        if isinstance(error, dict):
            message = error.get("message") or error.get("detail") or json.dumps(error)
            return {**error, "message": str(message)}
        return {"message": str(error)}
    return {"message": str(body)}


def raise_for(
    status: int, body: Any, headers: Mapping[str, str], place: str, key: Secret | None
) -> None:
    """Raise what an answer with this status means; nothing for a good one.

    Raises:
        BusyError: it is to be asked again later.
        RefusedError: the request is at fault.
        EndpointLostError: the server is.
        ShutOutError: it takes another key, or nothing before it is paid.
        EngineError: it answers from elsewhere.
    """
    if 200 <= status < 300:
        return
    told = error_in(body)
    words = quoted(told["message"], key)
    if status in (401, 403):
        raise key_error(place, status, key)
    if status == 402 or (status in (429, 503, 529) and told.get("code") == "insufficient_quota"):
        raise UnpaidError(f"the account at {place} has nothing left: {words}")
    if status in (429, 503, 529):
        raise BusyError(f"{place} answers {status}: {words}", _retry_after(headers))
    if status in (400, 404, 405, 413, 422):
        raise RefusedError(_refusal(status, told, words, place), _field_in(told))
    if 300 <= status < 400:
        raise EngineError(f"{place} answers with a redirect ({status}): give the URL it leads to")
    raise EndpointLostError(f"{place} answers {status}: {words}")


def key_error(place: str, status: int, key: Secret | None) -> KeyRefusedError:
    """It is not the key that opens the server, or there is none."""
    if key is None:
        return KeyRefusedError(f"{place} wants an API key ({status}): {KEY_PLACES}")
    return KeyRefusedError(f"{place} refuses the API key ({status}): give another one")


def told_in_stream(event: Mapping[str, Any], place: str, key: Secret | None) -> Exception:
    """The error that an event of a running answer tells."""
    told = error_in(event)
    words = quoted(told["message"], key)
    code = told.get("code")
    if code in (400, "400", 404, 422) or _TOO_LONG.search(words):
        return RefusedError(_refusal(400, told, words, place), _field_in(told))
    if code == "insufficient_quota":
        return UnpaidError(f"the account at {place} has nothing left: {words}")
    if code in (429, 503):
        return BusyError(f"{place} breaks off ({code}): {words}", None)
    return EndpointLostError(f"{place} breaks off: {words}")


def _refusal(status: int, told: Mapping[str, Any], words: str, place: str) -> InvalidRequestError:
    param = told.get("param")
    param = param.removeprefix("body.") if isinstance(param, str) else None
    kind = f"{told.get('code')} {told.get('type')} {words}"
    message = f"{place} refuses the request: {words}"
    if status == 413 or _TOO_LONG.search(kind):
        return ContextLengthError(message, param=param)
    if status == 404 and param is None and "model" in words.lower():
        return InvalidRequestError(message, param="model", code="model_not_found")
    return InvalidRequestError(message, param=param)


def _field_in(told: Mapping[str, Any]) -> str | None:
    """The field of the body, one of the outermost, that an error is about, where it points at one."""
    if isinstance(param := told.get("param"), str):
        return param.removeprefix("body.")
    details = told.get("detail")
    first = details[0] if isinstance(details, list) and details else None
    match first:
        case {"loc": ["body", str(name)]}:
            return name
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number of them or a date; None where nothing sensible is told."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else None


def lost(error: BaseException, place: str) -> ParrotError:
    """A connection that failed, as an error: its kind is told, for its words can hold anything."""
    return EndpointLostError(f"the connection to {place} failed: {type(error).__name__}")
