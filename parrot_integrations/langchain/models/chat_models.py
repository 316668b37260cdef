"""The chat model."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from parrot_integrations.client.chat.choices import ToolChoice, wire_tool_choice
from parrot_integrations.langchain.models.base_chat import BaseChatParrot
from parrot_integrations.langchain.models.structured_output import (
    Method,
    Structured,
    structured_output,
)
from parrot_integrations.langchain.models.tools import (
    Schema,
    wire_response_format,
    wire_tools,
)

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import _ChatModelBinding


class ChatParrot(BaseChatParrot):
    """Chat model of a Parrot backend.

    Setup:
        Install `parrot-integrations[langchain]`. For a backend that is started for you on this
        machine, install `parrot-integrations[langchain,backend]`; for one that runs already
        (`parrot serve`), name its address.

        ```bash
        pip install 'parrot-integrations[langchain,backend]'
        export PARROT_BASE_URL="http://127.0.0.1:8642"  # only for a backend that runs already
        ```

    Key init args — completion params:
        model: str | None
            Name of the model. None for the one that the backend serves.
        temperature: float | None
            Sampling temperature; 0 is greedy.
        max_tokens: int | None
            Most tokens to generate.
        logprobs: bool | None
            Whether to tell the probability of each token.
        top_p, top_k, min_p, presence_penalty, frequency_penalty, repetition_penalty, logit_bias, seed,
        stop, n:
            Nucleus, most likely tokens, least likely ones, penalties, likelihoods of single tokens,
            seed of the random numbers, stop strings, number of answers.

    Key init args — client params:
        base_url, api_key, timeout, max_retries, default_headers, http_client, http_async_client,
        extra_body:
            Where the backend is and how it is asked: `ModelFields` describes each.

    See the full list of supported init args and their descriptions in the params section.

    Instantiate:
        ```python
        from parrot_integrations.langchain import ChatParrot

        llm = ChatParrot(temperature=0, max_tokens=64)
        ```

    Invoke:
        ```python
        messages = [
            ("system", "You are a helpful translator. Translate the user's sentence to French."),
            ("human", "I love programming."),
        ]
        llm.invoke(messages)
        ```

    Stream:
        ```python
        for chunk in llm.stream(messages):
            print(chunk.text, end="")
        ```

        ```python
        full = None
        for chunk in llm.stream(messages):
            full = chunk if full is None else full + chunk
        full
        ```

    Async:
        ```python
        await llm.ainvoke(messages)

        async for chunk in llm.astream(messages):
            print(chunk.text, end="")

        await llm.abatch([messages, messages])
        ```

    Tool calling:
        ```python
        from pydantic import BaseModel, Field


        class GetWeather(BaseModel):
            '''Get the current weather in a given location.'''

            location: str = Field(description="The city and country, e.g. Paris, France")


        llm_with_tools = llm.bind_tools([GetWeather], tool_choice="any")
        message = llm_with_tools.invoke("What is the weather in Rome?")
        message.tool_calls
        ```

        ```python
        [
            {
                "name": "GetWeather",
                "args": {"location": "Rome"},
                "id": "call_5fc58a1b",
                "type": "tool_call",
            }
        ]
        ```

        The arguments always follow the tool's schema: the backend lets the model write nothing
        else. `tool_choice` is "auto" (the default), "any", "none" or a tool's name.

    Structured output:
        ```python
        class Person(BaseModel):
            '''A person in a text.'''

            name: str = Field(description="Full name")
            age: int = Field(description="Age in years")


        structured_llm = llm.with_structured_output(Person)
        structured_llm.invoke("Ada Lovelace was 36 years old.")
        ```

        See `ChatParrot.with_structured_output()` for more.

        `llm.bind(response_format=Person)` has the same schema and leaves the answer a message.

    JSON mode:
        ```python
        json_llm = llm.bind(response_format={"type": "json_object"})
        json_llm.invoke("Give a JSON object with the key 'color' and the color of the sky.").text
        ```

    Token usage:
        ```python
        message = llm.invoke(messages)
        message.usage_metadata
        ```

        ```python
        {
            "input_tokens": 33,
            "output_tokens": 64,
            "total_tokens": 97,
            "input_token_details": {"cache_read": 32},
        }
        ```

        `cache_read` counts the tokens of the prompt that were found in the backend's prefix cache.
        `llm.get_num_tokens_from_messages` counts with the model's own tokenizer and chat template,
        and generates nothing.

    Logprobs:
        ```python
        message = llm.invoke(messages, logprobs=True, top_logprobs=2, max_tokens=1)
        message.response_metadata["logprobs"]["content"][0]
        ```

        ```python
        {
            "token": "J",
            "logprob": -0.62,
            "bytes": [74],
            "top_logprobs": [
                {"token": "J", "logprob": -0.62, "bytes": [74]},
                {"token": "I", "logprob": -1.31, "bytes": [73]},
            ],
        }
        ```

    Response metadata:
        ```python
        message = llm.invoke(messages)
        message.response_metadata
        ```

        ```python
        {
            "finish_reason": "length",
            "model_name": "smollm2-135m-instruct",
            "model_provider": "parrot",
            "id": "chat-9f2c1d4b5a6e7f8091a2b3c4",
            "system_fingerprint": "fp_3d1f6a20c4be",
            "token_usage": {
                "prompt_tokens": 33,
                "completion_tokens": 64,
                "total_tokens": 97,
                "prompt_tokens_details": {"cached_tokens": 32},
            },
            "generation_config": {
                "temperature": 0.0,
                "top_p": 0.9,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "frequency_penalty": 0.5,
                "max_tokens": 64,
            },
        }
        ```
    """

    def bind(self, **kwargs: Any) -> "_ChatModelBinding":
        """The model with arguments of each call.

        A class as `response_format`, pydantic's or a TypedDict, is turned into its schema here, once.
        """
        if isinstance(schema := kwargs.get("response_format"), type):
            kwargs["response_format"] = wire_response_format(schema)
        return super().bind(**kwargs)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: ToolChoice | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Schema | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it may call.

        Args:
            tools: tools, functions, pydantic classes, TypedDicts or schemas; may be empty.
            tool_choice: "auto" leaves it to the model, "any", "required" or True makes it call one
                or more, "none" forbids it; a tool's name, or
                {"type": "function", "function": {"name": ...}}, makes it call that one.
            strict: OpenAI's strict schemas: every argument is required and no other is allowed.
                The arguments follow the schema in any case.
            parallel_tool_calls: whether the model may call several at once.
            response_format: what its answer is to look like when it calls none.
            kwargs: further arguments of each call.

        Raises:
            ValueError: tool_choice names a tool that is not among them.
        """
        wired = wire_tools(tools, strict)
        bound = {
            "tool_choice": wire_tool_choice(tool_choice, wired),
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": wire_response_format(response_format) if response_format else None,
        }
        given = {name: value for name, value in bound.items() if value is not None}
        return self.bind(tools=wired, **given, **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Structured:
        """The model with answers that a schema describes.

        In every method the backend constrains what the model may write to the schema, so an answer
        fits it, or was cut off at its token limit; then it is an `OutputParserException`.

        Args:
            schema: a pydantic class, whose objects are then the result; or a TypedDict, a JSON
                schema or a function schema, for dicts.
            method: "json_schema" and "json_mode": the answer is the JSON; "function_calling": it is
                the arguments of a tool. Only "json_mode" goes without a schema: any JSON object.
            include_raw: whether to give {"raw": message, "parsed": ..., "parsing_error": ...}, and
                the error in place of raising it.
            strict: OpenAI's strict schemas; see `bind_tools`.
            kwargs: further arguments of each call.

        Raises:
            ValueError: a method that there is not, no schema, or `strict` with "json_mode".
        """
        return structured_output(
            self, schema, method=method, include_raw=include_raw, strict=strict, **kwargs
        )
