"""Structured prediction: the backend lets the model write nothing but what the schema allows."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from inspect import unwrap
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from parrot_integrations.client.chat.formats import class_schema, response_format
from parrot_integrations.llama_index.models.objects import aobjects, objects, parsed
from parrot_integrations.llama_index.models.tools import ToolCallingParrot
from parrot_integrations.llama_index.segments import rendered_messages

M = TypeVar("M", bound=BaseModel)
LLMArguments = dict[str, Any] | None

dispatcher = get_dispatcher(__name__)

# They are of calls, and here is none; the framework's own programs drop them too.
_OF_TOOLS = frozenset({"tool_choice", "tool_required", "allow_parallel_tool_calls"})


class StructuredParrot(ToolCallingParrot):
    """The part of `Parrot` that predicts objects.

    With `pydantic_program_mode` at its default an object is one chat, whose answer is its JSON; in any
    other mode the framework's own program makes it. `as_structured_llm` is made of these.
    """

    def structured_predict(
        self,
        output_cls: type[M],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments = None,
        **prompt_args: Any,
    ) -> M:
        """The object that the model predicts.

        Args:
            output_cls: its class.
            prompt: what to ask.
            llm_kwargs: further arguments of `chat`.
            prompt_args: what the prompt is formatted with.

        Raises:
            ValueError: the answer was cut off at its token limit, or the class refuses it for what no
                schema says.
        """
        if not self._constrains:
            own = _undecorated(LLM.structured_predict)
            result: M = own(self, output_cls, prompt, llm_kwargs, **prompt_args)
            return result
        dispatcher.event(_start(output_cls, prompt, prompt_args))
        messages, arguments = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        result = parsed(self.chat(messages, **arguments), output_cls)
        dispatcher.event(LLMStructuredPredictEndEvent(output=result))
        return result

    async def astructured_predict(
        self,
        output_cls: type[M],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments = None,
        **prompt_args: Any,
    ) -> M:
        """As `structured_predict`."""
        if not self._constrains:
            own = _undecorated(LLM.astructured_predict)
            result: M = await own(self, output_cls, prompt, llm_kwargs, **prompt_args)
            return result
        dispatcher.event(_start(output_cls, prompt, prompt_args))
        messages, arguments = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        result = parsed(await self.achat(messages, **arguments), output_cls)
        dispatcher.event(LLMStructuredPredictEndEvent(output=result))
        return result

    def _structured_stream_call(
        self,
        output_cls: type[M],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """What `stream_structured_predict` reads."""
        if not self._constrains:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages, arguments = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        return objects(self.stream_chat(messages, **arguments), output_cls)

    async def _structured_astream_call(
        self,
        output_cls: type[M],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """What `astream_structured_predict` reads."""
        if not self._constrains:
            return await super()._structured_astream_call(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
        messages, arguments = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        return aobjects(await self.astream_chat(messages, **arguments), output_cls)

    @property
    def _constrains(self) -> bool:
        return self.pydantic_program_mode == PydanticProgramMode.DEFAULT

    def _structured_body(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments,
        prompt_args: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The request that a structured prediction sends, where it is not streamed."""
        messages, arguments = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        return self._body(messages, **arguments)

    def _structured_call(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments,
        prompt_args: Mapping[str, Any],
    ) -> tuple[list[ChatMessage], dict[str, Any]]:
        """The arguments of the chat that predicts."""
        given = {k: v for k, v in (llm_kwargs or {}).items() if k not in _OF_TOOLS}
        given["response_format"] = response_format(class_schema(output_cls))
        return self._structured_messages(prompt, **prompt_args), given

    def _structured_messages(self, prompt: PromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        """A prompt's messages: as `_get_messages`, without the LLM's own parser, which is for texts."""
        messages = self._extend_messages(prompt.format_messages(llm=self, **prompt_args))
        return rendered_messages(messages, prompt, prompt_args, self)


def _undecorated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the framework without its span: ours, which goes on with it, has one."""
    own: Callable[..., Any] = unwrap(method)
    return own


def _start(
    output_cls: type[BaseModel], prompt: PromptTemplate, prompt_args: dict[str, Any]
) -> LLMStructuredPredictStartEvent:
    return LLMStructuredPredictStartEvent(
        output_cls=output_cls, template=prompt, template_args=prompt_args
    )
