"""The LLM."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from parrot_backend.wire.protocol import CallScope
from parrot_integrations.client.fields import CONFIG
from parrot_integrations.llama_index.models.results import chat_response, completion
from parrot_integrations.llama_index.models.streams import aresponses, responses
from parrot_integrations.llama_index.models.structured import StructuredParrot
from parrot_integrations.llama_index.scope import ascope_of, scope_of

F = TypeVar("F", bound=Callable[..., Any])

_chat_events: Callable[[F], F] = llm_chat_callback()
_completion_events: Callable[[F], F] = llm_completion_callback()


class Parrot(StructuredParrot):
    """LLM of a Parrot backend.

    Args:
        model: name of the model; None for the one that the backend serves.
        temperature: sampling temperature; 0 is greedy, None the model's own default.
        max_tokens: most tokens to generate. Always sent, because LlamaIndex packs prompts so that
            this many tokens are left for the answer.
        top_p, top_k, min_p, frequency_penalty, presence_penalty, repetition_penalty, logit_bias, seed,
            stop: as in the request; None the model's own default.
        logprobs, top_logprobs: whether to tell how likely the tokens were, and how many others.
        additional_kwargs: further fields of the request, as they are.
        context_window: tokens of prompt and answer together; None to ask the backend.
        base_url: address of the backend; defaults to PARROT_BASE_URL, and without either a managed
            backend is started at the first call and ended with this process.
        api_key: defaults to PARROT_API_KEY.
        timeout: longest wait for the next byte of an answer, in seconds; None for as long as it takes,
            or one of httpx's other forms.
        max_retries: how often a request is sent again; None for twice.
        default_headers, http_client, http_async_client, extra_body: as those of OpenAI's clients.

    Examples:
        `pip install 'parrot-integrations[llama-index,backend]'`

        ```python
        from parrot_integrations.llama_index import Parrot

        llm = Parrot(temperature=0, max_tokens=64)
        print(llm.complete("The capital of France is"))
        ```

        Tools, which the model can only call with arguments that fit:

        ```python
        from llama_index.core.tools import FunctionTool


        def weather(city: str) -> str:
            '''The weather in a city.'''
            return f"It is sunny in {city}."


        tool = FunctionTool.from_defaults(weather)
        print(llm.predict_and_call([tool], "What is the weather in Rome?", tool_required=True))
        ```

        Objects, whatever the model's size:

        ```python
        from llama_index.core.prompts import PromptTemplate
        from pydantic import BaseModel


        class Person(BaseModel):
            '''Someone in a text.'''

            name: str
            age: int


        prompt = PromptTemplate("{text} Who is it, and how old?")
        person = llm.structured_predict(Person, prompt, text="Ada was 36 years old.")
        person = llm.as_structured_llm(Person).complete("Ada was 36 years old.").raw
        ```

        Prompts that are packed by the model's own tokens:

        ```python
        from llama_index.core import Settings

        Settings.llm, Settings.tokenizer = llm, llm.tokenizer
        ```
    """

    model_config = CONFIG

    @_chat_events
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers a chat."""
        body = self._body(messages, **kwargs)
        return chat_response(self.client_for(kwargs).chat(body, scope_of(messages)))

    @_chat_events
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers a chat."""
        body = self._body(messages, **kwargs)
        scope = ascope_of(messages)
        return chat_response(await self.client_for(kwargs).achat(body, scope))

    @_chat_events
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answers a chat in pieces."""
        return self._stream(messages, scope_of(messages), **kwargs)

    @_chat_events
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answers a chat in pieces."""
        return self._astream(messages, ascope_of(messages), **kwargs)

    @_completion_events
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answers one user message."""
        body = self._body(self._user(prompt, formatted), **kwargs)
        return completion(chat_response(self.client_for(kwargs).chat(body, scope_of(prompt))))

    @_completion_events
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answers one user message."""
        body = self._body(self._user(prompt, formatted), **kwargs)
        answer = await self.client_for(kwargs).achat(body, ascope_of(prompt))
        return completion(chat_response(answer))

    @_completion_events
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answers one user message in pieces."""
        stream = self._stream(self._user(prompt, formatted), scope_of(prompt), **kwargs)
        return (completion(response) for response in stream)

    @_completion_events
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answers one user message in pieces."""
        stream = self._astream(self._user(prompt, formatted), ascope_of(prompt), **kwargs)
        return (completion(response) async for response in stream)

    def _stream(
        self, messages: Sequence[ChatMessage], scope: CallScope, **kwargs: Any
    ) -> ChatResponseGen:
        """A stream that is of the scope in which it was asked for, whoever reads it."""
        body = self._stream_body(messages, **kwargs)
        return responses(self.client_for(kwargs).stream_chat(body, scope))

    def _astream(
        self, messages: Sequence[ChatMessage], scope: CallScope, **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """As `_stream`."""
        body = self._stream_body(messages, **kwargs)
        return aresponses(self.client_for(kwargs).astream_chat(body, scope))
