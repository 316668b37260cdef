"""What an operator says of an engine: on the command line, in a file, or to the operator's route."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from parrot_backend.endpoints.keys import read_key
from parrot_backend.endpoints.upstream.address import KEY_PLACES, Secret
from parrot_backend.endpoints.vllm.command import check_arguments
from parrot_backend.wire.errors import InvalidRequestError, ParrotError
from parrot_backend.wire.messages import Name

Kind = Literal["parrot", "vllm", "upstream"]
ModelName = Annotated[str, Field(min_length=1, max_length=1024)]

_FORMS = "write vllm:MODEL, parrot:MODEL or http://HOST:PORT"
# An address or a name of few letters: nothing of it is a key.
_HOST_AND_PORT = re.compile(
    r"(localhost|\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:]{2,39}\])(:\d{1,5})?(/v1)?"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _engine(text: str) -> str:
    """An engine as it is written, checked; what is wrong is said without what may be a key in it."""
    kind, colon, model = text.partition(":")
    if kind in ("vllm", "parrot"):
        if not (colon and model.strip()):
            raise ValueError(f"it names no model: write {kind}:MODEL")
        return text
    return _url(text)


def _url(text: str) -> str:
    if (parts := _parts(text)) is None:
        raise ValueError(f"it is no URL: {_FORMS}")
    if "@" in text:
        raise ValueError(f"a URL has no key or password in it: {KEY_PLACES}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        if _HOST_AND_PORT.fullmatch(text):
            raise ValueError(f"it is no engine: is http://{text} meant?")
        raise ValueError(f"it is no engine: {_FORMS}")
    if parts.query or parts.fragment or re.search(r"\s", text):
        raise ValueError("it is no engine's URL: leave out what follows its path")
    return text.rstrip("/")


def _parts(url: str) -> SplitResult | None:
    """None where it is no URL, or has a port that is none."""
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts
    except ValueError:
        return None


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):  # it may be the key itself, and is not to be quoted
        raise ValueError("it is no name of an environment variable; give its name, not the key")
    return name


class EngineSpec(BaseModel):
    """One engine: what it is, what it is called, and who may use it how much.

    `models` are those of an upstream that has several; without, it serves the one that it has, which
    here is called `serves`, where the engine's own name for it is another. Keys are never part of it,
    only where they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Annotated[str, AfterValidator(_engine)]
    name: Name | None = None
    models: tuple[ModelName, ...] | None = Field(default=None, min_length=1)
    serves: ModelName | None = None
    aliases: tuple[ModelName, ...] = ()
    weight: float = Field(default=1.0, gt=0, le=1000)
    slots: int | None = Field(default=None, ge=1)
    tenants: frozenset[Name] | None = Field(default=None, min_length=1)
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = None
    api_key_file: Path | None = None
    arguments: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What has to be made."""
        kind = self.engine.partition(":")[0]
        return "vllm" if kind == "vllm" else "parrot" if kind == "parrot" else "upstream"

    @property
    def target(self) -> str:
        """The model, or the URL."""
        return self.engine if self.kind == "upstream" else self.engine.partition(":")[2]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "vllm":
            try:
                check_arguments(self.arguments)
            except ParrotError as error:
                raise ValueError(f"arguments: {error.message}") from None
        elif self.arguments:
            raise ValueError("arguments: only a vllm: engine has some")
        if self.kind != "upstream" and (self.models or self.api_key_env or self.api_key_file):
            raise ValueError("models, api_key_env and api_key_file go with a URL")
        if self.api_key_env and self.api_key_file:
            raise ValueError("give either api_key_env or api_key_file")
        if len(self.models or ()) > 1 and (self.aliases or self.serves):
            raise ValueError(
                "serves and aliases go with one model: give each of these an entry of its own"
            )
        for field in ("models", "aliases"):
            if twice := twice_in(getattr(self, field) or ()):
                raise ValueError(f"{field}: '{twice}' is there twice")
        if self.serves in self.aliases:
            raise ValueError(f"aliases: '{self.serves}' is what it serves already")
        return self

    def key(self) -> Secret | None:
        """The key that the upstream wants, from where it is.

        Raises:
            InvalidRequestError: it is not there.
        """
        who = f"engine '{self.name or place_of(self.engine)}': "
        fields = (f"{who}api_key_env", f"{who}api_key_file")
        return read_key(self.api_key_env, self.api_key_file, fields)

    def each(self) -> "list[EngineSpec]":
        """One for each of its models; all but the name stays."""
        if len(models := self.models or ()) < 2:
            return [self]
        return [
            self.model_copy(update={"models": (model,), "name": f"{self.name}:{_as_name(model)}"})
            for model in models
        ]


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:\-]", "-", text)[:64]


def twice_in(values: Sequence[str]) -> str | None:
    """The first value that comes more than once."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def spec_of(engine: str, arguments: Sequence[str] = ()) -> EngineSpec:
    """What `--engine` says; `arguments` are vLLM's.

    Raises:
        InvalidRequestError: it says no engine.
    """
    fields = {"engine": engine, "arguments": tuple(arguments)}
    return checked(fields, f"--engine {place_of(engine)}".rstrip())


def checked(fields: Any, where: str) -> EngineSpec:
    """The engine of an entry or a body.

    Raises:
        InvalidRequestError: it is none; one line that begins with `where` and the field.
    """
    try:
        return EngineSpec.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequestError(told(error, where)) from None


_REASONS = {
    "missing": "it is missing",
    "model_type": "it has to be fields with their values, such as 'engine: http://HOST:PORT'",
    "dict_type": "it has to be fields with their values, such as 'engine: http://HOST:PORT'",
    "list_type": "it has to be a list",
    "tuple_type": "it has to be a list",
    "frozen_set_type": "it has to be a list",
    "too_short": "it is empty: leave it out, or give it at least one",
}
"""What our fields say in place of Pydantic's words, which speak of Python."""


def told(error: ValidationError, where: str, model: type[BaseModel] = EngineSpec) -> str:
    """Its first problem in one line, without any value, which may be a key."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(map(str, problem["loc"]))
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        reason = f"there is no such field; there are {', '.join(model.model_fields)}"
    reason = _REASONS.get(problem["type"], reason)
    return ": ".join(part for part in (where, path, reason) if part)


def place_of(engine: str) -> str:
    """What of an engine as it is written can be told to anybody: of a URL its scheme and host.

    Where it is no engine, that is no more than what can't be a key.
    """
    kind, colon, model = engine.partition(":")
    if kind in ("vllm", "parrot") and colon:
        return f"{kind}:{model:.100}"
    if _HOST_AND_PORT.fullmatch(engine):
        return engine
    parts = _parts(engine)
    if (
        parts is None
        and (begins := re.match(r"https?://[^:/?#@\s]+:", engine))
        and "@" not in engine
    ):
        return f"{begins[0]}..."
    if parts is None or not parts.hostname or "@" in engine:
        return f"{kind}:..." if colon and re.fullmatch("[a-z]{1,16}", kind) else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"
