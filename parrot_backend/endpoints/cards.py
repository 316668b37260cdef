"""What was measured of engines, by `parrot doctor`: one small file for each engine and model.

What an engine answers with when it is recognized says how its kind usually is; what was measured of
this one decides. A card is of one version: after an update the engine is another.
"""

import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parrot_backend.endpoints.base import Sharing
from parrot_backend.engines.store.folders import cache_folder

PriorityOrder = Literal["lower", "higher", "ignored", "refused"]
"""Which number is served first; or that it makes no difference, or is no valid field."""

Obeyed = Literal["json_schema", "regex", "lark"]

_PRIORITIES = {
    "lower": "lower_first",
    "higher": "higher_first",
    "ignored": "none",
    "refused": "none",
}


class MeasuredCard(BaseModel):
    """What is known of one engine by trying; None is what could not be told.

    `slots` is how many answers ran at once where more were asked for.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    measured: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    priority_order: PriorityOrder | None = None
    salt_isolates: bool | None = None
    tells_cached_tokens: bool | None = None
    takes_token_ids: bool | None = None
    tells_token_ids: bool | None = None
    obeys: frozenset[Obeyed] | None = None
    tells_logprobs: bool | None = None
    batching_changes_tokens: bool | None = None
    sharing: Sharing | None = None
    slots: int | None = Field(default=None, ge=1)
    context_length: int | None = Field(default=None, ge=1)

    def changes(self, structured: str) -> dict[str, object]:
        """What it changes of an upstream's dialect, by the names of the dialect's fields.

        Args:
            structured: how the dialect asks for the form of an answer.
        """
        form = self._structured(structured)
        found = {
            "priority": _PRIORITIES.get(self.priority_order or ""),
            "salts": self.salt_isolates,
            "tells_tokens": self.tells_token_ids,
            "takes_tokens": self.takes_token_ids,
            "structured": form,
            "styles": False if form == "response_format" else None,
            "logprobs": self.tells_logprobs,
            "tells_cached": self.tells_cached_tokens,
            "sharing": self.sharing,
            "repeatable": None
            if self.batching_changes_tokens is None
            else not self.batching_changes_tokens,
            "slots": self.slots,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _structured(self, dialects: str) -> str | None:
        """Only vLLM's way has all three; JSON schemas alone are everybody's `response_format`."""
        if self.obeys is None or dialects == "none":
            return None
        if {"regex", "lark"} <= self.obeys:
            return "structured_outputs"
        if "json_schema" not in self.obeys:
            return "none"
        return "response_format" if dialects == "structured_outputs" else None


class _Kept(BaseModel):
    """A card with what it is of, for people, and for two keys that are equal by chance."""

    url: str
    model: str
    version: str
    card: MeasuredCard


def read_card(url: str, model: str, version: str | None) -> MeasuredCard | None:
    """What was measured of an engine in this version; None where there is nothing to understand."""
    told = (_plain(url), model, version or "")
    try:
        kept = _Kept.model_validate_json(_place(*told).read_bytes())
    except (OSError, ValidationError):
        return None
    return kept.card if (kept.url, kept.model, kept.version) == told else None


def write_card(url: str, model: str, version: str | None, card: MeasuredCard) -> Path:
    """Keep a card in place of the one before, and return its file.

    Raises:
        OSError: it can't be written.
    """
    told = (_plain(url), model, version or "")
    place = _place(*told)
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(f".{os.getpid()}.new")
    kept = _Kept(url=told[0], model=model, version=told[2], card=card)
    fresh.write_text(kept.model_dump_json(indent=2, exclude_none=True) + "\n")
    os.replace(fresh, place)
    return place


def _place(url: str, model: str, version: str) -> Path:
    """The file, with the engine's address in its name."""
    key = hashlib.sha256("\n".join((url, model, version)).encode(errors="surrogateescape"))
    readable = re.sub(r"[^\w.-]+", "-", url.partition("://")[2])[:48].strip("-")
    return cache_folder() / "cards" / f"{readable}-{key.hexdigest()[:12]}.json"


def _plain(url: str) -> str:
    """Without what is the same engine's, and without a password that somebody has put into it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme.lower()}://{host}{path}"
