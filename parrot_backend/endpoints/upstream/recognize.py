"""What kind of server an upstream is, by what it answers, and which model it serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.endpoints.upstream.client import Client, Reply
from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.endpoints.upstream.faults import error_in, key_error, quoted
from parrot_backend.endpoints.upstream.kinds import found_out, number
from parrot_backend.engines.base import ModelCard
from parrot_backend.wire.errors import EndpointLostError, EngineError, InvalidRequestError
from parrot_backend.wire.parameters import GenerationConfig

_MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Recognized:
    """A server and the one of its models that we use. What is None it does not tell.

    `engine` names kind, version and place, for people.
    """

    dialect: Dialect
    model: ModelCard
    engine: str
    version: str | None = None
    slots: int | None = None
    kv_tokens: int | None = None


async def recognized(client: Client, model: str | None) -> Recognized:
    """Ask a server what it is.

    Args:
        client: asks it.
        model: the one to use; None where it has to be the only one.

    Raises:
        EndpointLostError: it can't be reached, or answers nothing that we understand.
        EngineError: it wants a key, or another one.
        InvalidRequestError: it does not serve that model, or several, or none.
    """
    listed = await _listed(client)
    try:
        return await _of(client, listed, model)
    except (TypeError, LookupError, ValueError, ArithmeticError, AttributeError) as error:
        place = client.address.place
        told = f"{place} tells of itself what we don't understand ({type(error).__name__})"
        raise EndpointLostError(told) from error


async def _of(client: Client, listed: Sequence[Mapping[str, Any]], model: str | None) -> Recognized:
    name, entry = _chosen(listed, model, client.address.place, client.key)
    found = await found_out(client, name, entry)
    context = found.context or number(entry.get("max_model_len"))
    return Recognized(
        dialect=found.dialect,
        model=ModelCard(name, context, generation_config=_generation_config(entry)),
        engine=quoted(f"{found.dialect.name} {found.version}", client.key)
        + f" at {client.address.place}",
        version=found.version or None,
        slots=found.slots,
        kv_tokens=found.kv_tokens,
    )


def names_in(reply: Reply) -> list[str] | None:
    """The models that a server lists; None where it lists none in a way that we know."""
    entries = reply.table().get("data")
    if not isinstance(entries, list):
        return None
    return [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]


async def _listed(client: Client) -> list[Mapping[str, Any]]:
    place = client.address.place
    try:
        reply = await client.get("/v1/models")
    except TimeoutError:
        raise EndpointLostError(f"{place} does not answer in time: is it an engine?") from None
    except httpx.ConnectError:
        raise EndpointLostError(f"nothing answers at {place}: is the engine started?") from None
    except httpx.HTTPError as error:
        raise EndpointLostError(f"{place} can't be asked: {type(error).__name__}") from None
    if reply.status in (401, 403):
        raise key_error(place, reply.status, client.key)
    if 300 <= reply.status < 400:
        raise EngineError(f"{place} answers with a redirect: give the URL that it leads to")
    if reply.status == 503:
        words = quoted(error_in(reply.body)["message"], client.key)
        raise EndpointLostError(f"{place} is not ready yet: {words}")
    entries = reply.table().get("data")
    if entries is None and reply.good and isinstance(reply.body, dict) and "data" in reply.body:
        entries = []  # Ollama without models
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "id" in e for e in entries):
        told = quoted(error_in(reply.body)["message"], client.key)[:120]
        raise EndpointLostError(
            f"{place} lists no models at {client.url('/v1/models')} ({reply.status}: {told}): give "
            "the URL of an OpenAI-compatible API"
        )
    return entries


def _chosen(
    entries: Sequence[Mapping[str, Any]], model: str | None, place: str, key: Secret | None
) -> tuple[str, Mapping[str, Any]]:
    """The entry of the model; aliases and adapters of one do not make it several."""
    names = [str(entry["id"]) for entry in entries]
    listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    listed = quoted(listed, key)
    if not names:
        raise InvalidRequestError(f"{place} serves no model", param="model")
    if model is not None:
        for name, entry in zip(names, entries, strict=True):
            if name in (model, f"{model}:latest"):
                return name, entry
        raise InvalidRequestError(
            f"{place} does not serve '{model}'; it serves: {listed}",
            param="model",
            code="model_not_found",
        )
    own = [entry for entry in entries if not entry.get("parent")] or list(entries)
    roots = {entry.get("root") or entry["id"] for entry in own}
    if len(roots) > 1:
        raise InvalidRequestError(
            f"{place} serves several models: name one with --model, or some by `models` in the file of "
            f"--engines: {listed}",
            param="model",
        )
    return str(own[0]["id"]), own[0]


def _generation_config(entry: Mapping[str, Any]) -> GenerationConfig | None:
    """How it generates where nobody says: another Parrot tells, others keep it for themselves."""
    try:
        return GenerationConfig.model_validate(entry.get("generation_config"))
    except ValueError:
        return None
