"""Tools: what a chat offers, and which calls a response has."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from parrot_integrations.client.chat.choices import ToolChoice, wire_tool_choice
from parrot_integrations.client.chat.formats import CUT_OFF, is_json, partial_json
from parrot_integrations.llama_index.models.base import BaseParrot
from parrot_integrations.llama_index.models.messages import tool_calls
from parrot_integrations.llama_index.models.results import assistant


class ToolCallingParrot(BaseParrot):
    """The part of `Parrot` that `FunctionCallingLLM` makes chats with tools of."""

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: ToolChoice | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of `chat` for a chat with tools.

        Args:
            tools: may be empty.
            user_msg: goes behind the history.
            chat_history: what was said so far.
            verbose: of no effect.
            allow_parallel_tool_calls: whether the model may call several at once.
            tool_required: whether it must call one; `tool_choice` goes before.
            tool_choice: "auto", "any", "required", "none", a tool's name, or OpenAI's dict.
            strict: goes with the tools. Their arguments follow the schema in any case.
            kwargs: further arguments of `chat`.

        Raises:
            ValueError: tool_choice names a tool that is not among them.
        """
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        messages = [*(chat_history or ()), *([user_msg] if user_msg else ())]
        offered = [_wire_tool(tool, strict) for tool in tools]
        if not offered:
            return {"messages": messages, **kwargs}
        choice = wire_tool_choice(tool_choice, offered)
        return {
            "messages": messages,
            "tools": offered,
            "tool_choice": choice or ("required" if tool_required else "auto"),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """The response with no more calls than are allowed."""
        calls = tool_calls(response.message)
        if len(calls) > 1 and not allow_parallel_tool_calls:
            response.message = assistant(response.message.content or "", calls[:1])
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a response; while it is streamed, with as much of each as is there.

        Raises:
            ValueError: there is none, and `error_on_no_tool_call`; or the answer ended within one: a
                tool must not be called with half of its arguments.
        """
        calls = tool_calls(response.message)
        if not calls and error_on_no_tool_call:
            raise ValueError("Expected at least one tool call, but the response has none.")
        if calls and response.additional_kwargs.get("finish_reason") == "length":
            _refuse_cut_off(calls[-1])
        return [_selection(call) for call in calls]


def _wire_tool(tool: BaseTool, strict: bool | None) -> dict[str, Any]:
    wired: dict[str, Any] = tool.metadata.to_openai_tool(skip_length_check=True)
    if strict is not None:
        wired["function"]["strict"] = strict
    return wired


def _refuse_cut_off(call: Mapping[str, Any]) -> None:
    if not is_json(call["function"]["arguments"]):
        raise ValueError(f"Call of tool '{call['function']['name']}': {CUT_OFF}")


def _selection(call: Mapping[str, Any]) -> ToolSelection:
    arguments = partial_json(call["function"]["arguments"])
    return ToolSelection(
        tool_id=call["id"] or "",
        tool_name=call["function"]["name"],
        tool_kwargs=arguments if isinstance(arguments, dict) else {},
    )
