"""Who splits tool calls from text, the server or we: asked once, by requests for one token."""

from typing import Any

import httpx

from parrot_backend.endpoints.tool_grammar import tool_grammar
from parrot_backend.endpoints.upstream.client import Client, Reply
from parrot_backend.endpoints.upstream.dialect import Tools
from parrot_backend.endpoints.upstream.faults import error_in, lost, raise_for
from parrot_backend.wire.protocol import ChatRequest

_SECONDS = 60.0
_PLAIN = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
_TOOL = {
    "type": "function",
    "function": {
        "name": "nothing",
        "description": "Does nothing.",
        "parameters": {"type": "object", "properties": {}},
    },
}


async def does_tools(client: Client, model: str) -> Tools:
    """`native` where it takes a choice of tools and shows them to the model.

    Else, where it refuses one, as vLLM does without a parser, or drops the tools without a word, as
    llama.cpp does where the template knows none (then the prompt is as long as it is without them),
    `ours` where it takes our grammar of them, as vLLM does by its guidance backend and by no other, and
    `none` where it does not.

    Raises:
        Exception: what `faults.raise_for` raises of an answer that tells nothing about tools.
    """
    offered = await _asked(client, _PLAIN | {"model": model, "tools": [_TOOL]})
    if _refuses_tools(offered):
        return await _by_grammar(client, model)
    _check(client, offered)
    with_tools = _prompt_tokens(offered)
    plain = await _asked(client, _PLAIN | {"model": model})
    _check(client, plain)
    without = _prompt_tokens(plain)
    if with_tools is None or with_tools != without:
        return "native"
    return await _by_grammar(client, model)


async def _by_grammar(client: Client, model: str) -> Tools:
    """A backend that can't compile the grammar fails the request by itself, with a 500."""
    request = ChatRequest.model_validate(_PLAIN | {"tools": [_TOOL]})
    grammar = tool_grammar(request, None)
    body = _PLAIN | {"model": model, "structured_outputs": {"grammar": grammar.source}}
    reply = await _asked(client, body)
    if reply.status in (400, 422, 500, 501) or "error" in reply.table():
        return "none"
    _check(client, reply)
    return "ours"


async def _asked(client: Client, body: dict[str, Any]) -> Reply:
    try:
        return await client.post("/v1/chat/completions", body, seconds=_SECONDS)
    except (httpx.HTTPError, TimeoutError) as error:
        raise lost(error, client.address.place) from None


def _refuses_tools(reply: Reply) -> bool:
    """llama.cpp without --jinja says so with a 500; any other 500 is a trouble that will pass."""
    words = error_in(reply.body)["message"].lower()
    return reply.status in (400, 422, 501) or (reply.status == 500 and "tools" in words)


def _check(client: Client, reply: Reply) -> None:
    raise_for(reply.status, reply.body, reply.headers, client.address.place, client.key)


def _prompt_tokens(reply: Reply) -> object:
    usage = reply.table().get("usage")
    return usage.get("prompt_tokens") if isinstance(usage, dict) else None
