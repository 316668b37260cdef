"""The tokens of a prompt, where a server tells them."""

from typing import Any

import httpx

from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.endpoints.upstream.faults import (
    BusyError,
    RefusedError,
    ShutOutError,
    lost,
    raise_for,
)
from parrot_backend.wire.errors import EndpointLostError, InvalidRequestError
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest

_SECONDS = 30.0


async def tokenized(client: Client, dialect: Dialect, model: str, request: LLMRequest) -> list[int]:
    """The prompt's tokens.

    Raises:
        InvalidRequestError: the server tells none, or refuses the prompt.
        EndpointLostError: it does not answer, or not to us.
    """
    if isinstance(request, PromptRequest) and not isinstance(request.prompt, str):
        return request.prompt
    if dialect.tokenizer == "llamacpp":
        return await _by_llama_cpp(client, request)
    path = "/v1/tokenize" if dialect.tokenizer == "parrot" else "/tokenize"
    if isinstance(request, PromptRequest):
        if dialect.tokenizer == "none":
            raise _untold(dialect)
        return await _asked(client, path, {"model": model, "prompt": request.prompt})
    if dialect.tokenizer in ("none", "prompt"):
        raise _untold(dialect)
    body: dict[str, Any] = {"model": model, "messages": _messages(request)}
    if request.tools:
        body["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
    return await _asked(client, path, body)


async def _by_llama_cpp(client: Client, request: LLMRequest) -> list[int]:
    if isinstance(request, PromptRequest):
        return await _asked(client, "/tokenize", {"content": request.prompt, "add_special": True})
    body: dict[str, Any] = {"messages": _messages(request)}
    if request.tools:
        body["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
    applied = await _table(client, "/apply-template", body)
    prompt = str(applied.get("prompt", ""))
    return await _asked(
        client, "/tokenize", {"content": prompt, "add_special": True, "parse_special": True}
    )


def _messages(request: Any) -> list[dict[str, Any]]:
    return [message.model_dump(exclude_none=True) for message in request.messages]


async def _asked(client: Client, path: str, body: dict[str, Any]) -> list[int]:
    tokens = (await _table(client, path, body)).get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise EndpointLostError(f"{client.address.place} tells no tokens")
    return tokens


async def _table(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    place = client.address.place
    try:
        reply = await client.post(path, body, seconds=_SECONDS)
        raise_for(reply.status, reply.body, reply.headers, place, client.key)
    except (httpx.HTTPError, TimeoutError) as error:
        raise lost(error, place) from None
    except BusyError as error:
        raise EndpointLostError(error.why) from None
    except ShutOutError as error:
        raise EndpointLostError(error.message) from None
    except RefusedError as refused:
        raise refused.error from None
    return reply.table()


def _untold(dialect: Dialect) -> InvalidRequestError:
    return InvalidRequestError(
        f"what runs this model ({dialect.name}) does not tell tokens: ask without", param="prompt"
    )
