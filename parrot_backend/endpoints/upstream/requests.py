"""From a job to the body of an upstream's request. What can't be said in its dialect is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.generation import grammar_of
from parrot_backend.endpoints.tool_calls import reader_of
from parrot_backend.endpoints.tool_grammar import must_call
from parrot_backend.endpoints.upstream.dialect import VLLM, Dialect
from parrot_backend.endpoints.upstream.forms import form_of, refused
from parrot_backend.engines.base import Delta
from parrot_backend.engines.tool_format import as_plain_chat
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest
from parrot_backend.wire.tools import NamedTool

EXTRAS = (
    "priority",
    "cache_salt",
    "return_token_ids",
    "stream_options",
    "id_slot",
    "cache_prompt",
)
"""What we add to a request without being asked for it."""

_NO_TOOLS = "give it a model or a chat template that knows tools, or leave them out"
_TOOLS_ADVICE = {
    VLLM.name: 'start it with --structured-outputs-config \'{"backend": "guidance"}\', by which '
    "Parrot has calls written, or with --enable-auto-tool-choice and its model's --tool-call-parser"
}
_KINDS = {"lark": "grammar", "regex": "regex", "json_schema": "json"}
_PARAMETERS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
)


def path_of(request: LLMRequest) -> str:
    """The route that it goes to."""
    is_chat = isinstance(request, ChatRequest)
    return "/v1/chat/completions" if is_chat else "/v1/completions"


def body_of(job: Job, model: str, dialect: Dialect, salt: str | None) -> dict[str, Any]:
    """The request of a job.

    Args:
        job: asks for one answer.
        model: as the server names it.
        dialect: of the server; whether tools are its or ours is decided in it.
        salt: of the job's tenant.

    Raises:
        InvalidRequestError: it asks for what the server can't do; `param` names it.
    """
    request = job.request
    body: dict[str, Any] = {"model": model, "stream": True}
    if dialect.tells_usage:
        body["stream_options"] = {"include_usage": True}
    body |= _parameters(request, dialect) | _logprobs(request, dialect)
    if isinstance(request, PromptRequest):
        body |= {"prompt": _prompt(request, dialect)} | form_of(request, dialect)
    elif request.tools:
        body |= _with_tools(request, dialect)
    else:
        body |= {"messages": _messages(request.messages)} | form_of(request, dialect)
    if dialect.priority != "none" and job.priority:
        body["priority"] = job.priority if dialect.priority == "higher_first" else -job.priority
    if dialect.salts and salt is not None:
        body["cache_salt"] = salt
    if dialect.tells_tokens:
        body["return_token_ids"] = True
    return body


def reader_for(request: LLMRequest, dialect: Dialect) -> Callable[[Delta], Delta]:
    """Splits tool calls from text where the server doesn't."""
    return reader_of(request) if dialect.tools == "ours" else lambda delta: delta


def _parameters(request: LLMRequest, dialect: Dialect) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in _PARAMETERS:
        value = getattr(request, name)
        if value is None:
            continue
        if name not in dialect.taken:
            raise refused(name, name, dialect)
        body[dialect.taken[name]] = value
    return body


def _logprobs(request: LLMRequest, dialect: Dialect) -> dict[str, Any]:
    if not request.logprobs:
        return {}
    if not dialect.logprobs:
        raise refused("logprobs", "logprobs", dialect)
    count = request.top_logprobs or 0
    if isinstance(request, PromptRequest):
        return {"logprobs": count}
    return {"logprobs": True, "top_logprobs": count}


def _prompt(request: PromptRequest, dialect: Dialect) -> str | list[int]:
    if not dialect.completes:
        raise refused("a raw prompt", "prompt", dialect, "send messages")
    if not isinstance(request.prompt, str) and not dialect.takes_tokens:
        raise refused("a prompt of token ids", "prompt", dialect, "send text")
    return request.prompt


def _messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    return [message.model_dump(exclude_none=True) for message in messages]


# Tools


def tools_advice(dialect: Dialect) -> str:
    """What to do where a server of this kind can have no tools called."""
    return _TOOLS_ADVICE.get(dialect.name, _NO_TOOLS)


def _with_tools(request: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    if dialect.tools == "native":
        return _native_tools(request, dialect) | form_of(request, replace(dialect, styles=False))
    if dialect.tools != "ours" or dialect.structured != "structured_outputs":
        if request.tool_choice == "none":  # and then it calls none
            return {"messages": _messages(request.messages)} | form_of(request, dialect)
        raise refused("calling tools", "tools", dialect, tools_advice(dialect))
    messages = as_plain_chat(request.messages, request.tools or ())
    grammar = grammar_of(request)
    form = {} if grammar is None else {"structured_outputs": {_KINDS[grammar.kind]: grammar.source}}
    return {"messages": _messages(messages), **form}


def _native_tools(request: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    choice, named = request.tool_choice, None
    if isinstance(choice, NamedTool) and not dialect.named_tool:
        named, choice = choice.function.name, "required"
    tools = [tool for tool in request.tools or () if named in (None, tool.function.name)]
    described = [tool.model_dump(exclude_none=True) for tool in tools]
    if not dialect.tool_choice:
        if must_call(request):
            raise refused("a tool_choice", "tool_choice", dialect)
        if request.parallel_tool_calls is False:
            raise refused("parallel_tool_calls: false", "parallel_tool_calls", dialect)
        offered = {} if choice == "none" else {"tools": described}
        return {"messages": _messages(request.messages)} | offered
    body: dict[str, Any] = {"messages": _messages(request.messages), "tools": described}
    if choice is not None:
        body["tool_choice"] = choice.model_dump() if isinstance(choice, NamedTool) else choice
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body
