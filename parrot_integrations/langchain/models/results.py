"""Chat answers in OpenAI's wire form as LangChain's results."""

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call, tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from parrot_integrations.client.chat.calls import StreamedCalls
from parrot_integrations.client.chat.usage import token_counts

PROVIDER = "parrot"

_OF_ALL = ("model_name", "model_provider", "system_fingerprint")


def chat_result(response: Mapping[str, Any]) -> ChatResult:
    """The result of a whole chat answer."""
    metadata = response_metadata(response)
    usage = usage_metadata(response.get("usage"))
    return ChatResult(
        generations=[
            ChatGeneration(
                message=_message(choice["message"], usage, metadata), generation_info=_info(choice)
            )
            for choice in response["choices"]
        ],
        llm_output=metadata,
    )


def combined_outputs(outputs: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The `llm_output` of several answers, as `ChatOpenAI` has it: tokens summed, and who answered.

    Args:
        outputs: those of the answers; None of one that came out of a cache or was streamed.
    """
    told = [output for output in outputs if output]
    usage: dict[str, Any] = {}
    for output in told:
        usage = _summed(usage, output.get("token_usage") or {})
    known = {name: output[name] for output in reversed(told) for name in _OF_ALL if name in output}
    return {"token_usage": usage, **known}


def _summed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The sums of numbers, also of those within."""
    summed = dict(one)
    for name, value in other.items():
        if isinstance(value, Mapping):
            summed[name] = _summed(summed.get(name) or {}, value)
        elif value is not None:
            summed[name] = (summed.get(name) or 0) + value
    return summed


def _message(
    wire: Mapping[str, Any], usage: UsageMetadata | None, metadata: Mapping[str, Any]
) -> AIMessage:
    tool_calls, invalid = _tool_calls(wire.get("tool_calls") or [])
    return AIMessage(
        content=wire.get("content") or "",
        tool_calls=tool_calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage,
        response_metadata=dict(metadata),
    )


def _info(choice: Mapping[str, Any]) -> dict[str, Any]:
    """What LangChain adds to a message's `response_metadata`."""
    info = {name: choice.get(name) for name in ("finish_reason", "logprobs")}
    return {name: value for name, value in info.items() if value is not None}


def _tool_calls(wire: list[dict[str, Any]]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Calls whose arguments are a JSON object, and the others: an answer may have been cut off."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for raw in wire:
        try:
            parsed = parse_tool_call(raw) or {}
            if not isinstance(parsed.get("args"), dict):
                raise OutputParserException("The arguments are not a JSON object.")
            calls.append(tool_call(name=parsed["name"], args=parsed["args"], id=parsed["id"]))
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(raw, str(error)))
    return calls, invalid


class ChunkTranslator:
    """Turns the chunks of one streamed answer into LangChain's.

    Text and tool calls go out as they come. The reason why it ended, the model's name and the usage
    are kept for one last chunk: merged, the same string from two chunks would be joined to itself.
    """

    def __init__(self) -> None:
        self._last: Mapping[str, Any] = {}
        self._finish_reason: str | None = None
        self._usage: UsageMetadata | None = None

    def content(self, chunk: Mapping[str, Any]) -> ChatGenerationChunk | None:
        """What a chunk adds to the answer; None where it adds nothing."""
        self._last = chunk
        self._usage = usage_metadata(chunk.get("usage")) or self._usage
        if not chunk["choices"]:
            return None
        choice = chunk["choices"][0]
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        text = choice["delta"].get("content") or ""
        calls = _call_chunks(choice["delta"].get("tool_calls") or [])
        logprobs = choice.get("logprobs")
        if not (text or calls or logprobs):
            return None
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=text,
                tool_call_chunks=calls,
                response_metadata={"model_provider": PROVIDER},
            ),
            generation_info={"logprobs": logprobs} if logprobs else None,
        )

    def last(self) -> ChatGenerationChunk:
        """The empty chunk that ends the stream, with all that is known about the answer."""
        info = {"finish_reason": self._finish_reason} if self._finish_reason else None
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=self._usage,
                response_metadata=response_metadata(self._last),
                chunk_position="last",
            ),
            generation_info=info,
        )


def _call_chunks(pieces: list[dict[str, Any]]) -> list[ToolCallChunk]:
    """One for each call: LangChain joins the pieces of a call only where they are in two chunks."""
    calls = StreamedCalls()
    calls.add(pieces)
    return [
        tool_call_chunk(
            name=call["function"]["name"] or None,
            args=call["function"]["arguments"],
            id=call["id"],
            index=index,
        )
        for index, call in calls.indexed().items()
    ]


def usage_metadata(usage: Mapping[str, Any] | None) -> UsageMetadata | None:
    """LangChain's form of OpenAI's usage; all in tokens."""
    counts = token_counts(usage)
    if counts is None:
        return None
    return UsageMetadata(
        input_tokens=counts.prompt,
        output_tokens=counts.completion,
        total_tokens=counts.total,
        input_token_details=InputTokenDetails(cache_read=counts.cached),
    )


def response_metadata(response: Mapping[str, Any]) -> dict[str, Any]:
    """Who answered, which answer it is, its tokens as OpenAI tells them, and how it was generated."""
    told = {
        "id": response.get("id"),
        "system_fingerprint": response.get("system_fingerprint"),
        "token_usage": response.get("usage"),
        "generation_config": response.get("generation_config"),
    }
    known = {name: value for name, value in told.items() if value is not None}
    return {"model_name": response.get("model") or "", "model_provider": PROVIDER, **known}
