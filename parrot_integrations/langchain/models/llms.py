"""The LLM: raw text in, its continuation out."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import GenerationChunk, LLMResult
from pydantic import AliasChoices, Field, model_validator

from parrot_integrations import __version__
from parrot_integrations.client.fields import CONFIG
from parrot_integrations.client.parameters import check_one_choice
from parrot_integrations.langchain.models.errors import model_errors
from parrot_integrations.langchain.models.settings import ParrotSettings
from parrot_integrations.langchain.models.streams import achunks_of, chunks_of
from parrot_integrations.langchain.models.text_results import TextChunkTranslator, llm_result
from parrot_integrations.langchain.scope import scope_of
from parrot_integrations.langchain.siblings import SiblingCalls


class ParrotLLM(SiblingCalls, ParrotSettings, BaseLLM):
    """Text completion by a Parrot backend.

    The model goes on from the prompt as it is: no chat template is put around it, as with other
    `LLM` classes of LangChain. Instruction-tuned models answer better through `ChatParrot`.

    `batch` and `generate` hand all prompts over in one request: their common beginnings are computed
    once, and they run as one batch. `max_concurrency` splits batches of more than 4096 prompts.

    Setup:
        Install `parrot-integrations[langchain]`, and for a backend that is started for you on this
        machine `parrot-integrations[langchain,backend]`.

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
            Most tokens to generate: 256, as a text without a chat template seldom ends by itself.
        logprobs: int | None
            How many alternatives to tell for each token.
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
        from parrot_integrations.langchain import ParrotLLM

        llm = ParrotLLM(temperature=0, max_tokens=16)
        ```

    Invoke:
        ```python
        llm.invoke("The capital of France is")
        ```

    Batch:
        ```python
        llm.batch(["The capital of Spain is", "The capital of Italy is"])
        ```

    Stream:
        ```python
        for text in llm.stream("The capital of France is"):
            print(text, end="")
        ```

    Async:
        ```python
        await llm.ainvoke("The capital of France is")

        async for text in llm.astream("The capital of France is"):
            print(text, end="")

        await llm.abatch(["The capital of Spain is", "The capital of Italy is"])
        ```

    Token usage:
        ```python
        result = llm.generate(["The capital of France is"])
        result.llm_output["usage_metadata"]
        ```

        ```python
        {
            "input_tokens": 5,
            "output_tokens": 16,
            "total_tokens": 21,
            "input_token_details": {"cache_read": 4},
        }
        ```

    Logprobs:
        ```python
        result = llm.generate(["The capital of France is"], logprobs=1, max_tokens=1)
        result.generations[0][0].generation_info
        ```

        ```python
        {
            "finish_reason": "length",
            "logprobs": {
                "tokens": [" Paris"],
                "token_logprobs": [-0.43],
                "top_logprobs": [{" Paris": -0.43}],
                "text_offset": [0],
            },
        }
        ```
    """

    model_config = CONFIG

    max_tokens: int | None = Field(
        default=256, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Most tokens to generate; None for the backend's default."""

    logprobs: int | None = Field(default=None, ge=0, le=20)
    """How many of the most likely tokens to tell for each token, beside its own probability."""

    @model_validator(mode="after")
    def _set_parrot_llm_version(self) -> Self:
        self._add_version("parrot-integrations", __version__)
        return self

    @property
    def _llm_type(self) -> str:
        return "parrot"

    def _own_parameters(self) -> dict[str, Any]:
        return {**super()._own_parameters(), "logprobs": self.logprobs}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._traced("llm", stop, **kwargs)

    def request_body(
        self, prompts: list[str], stop: list[str] | str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The request that a call with these arguments sends: all prompts, as one task group."""
        return {"prompt": prompts, **self.parameters(stop, **kwargs)}

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        body = self.request_body(prompts, stop, **kwargs)
        with model_errors():
            return llm_result(
                self.client_for(kwargs).complete(body, scope_of(run_manager)), len(prompts)
            )

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        body = self.request_body(prompts, stop, **kwargs)
        with model_errors():
            response = await self.client_for(kwargs).acomplete(body, scope_of(run_manager))
            return llm_result(response, len(prompts))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        body = self._stream_body(prompt, stop, **kwargs)
        events = self.client_for(kwargs).stream_completion(body, scope_of(run_manager))
        yield from chunks_of(events, TextChunkTranslator(), run_manager)

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        body = self._stream_body(prompt, stop, **kwargs)
        events = self.client_for(kwargs).astream_completion(body, scope_of(run_manager))
        async with aclosing(achunks_of(events, TextChunkTranslator(), run_manager)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _stream_body(self, prompt: str, stop: list[str] | None, **kwargs: Any) -> dict[str, Any]:
        body = self.request_body([prompt], stop, **kwargs)
        check_one_choice(body)
        return {**body, "stream_options": {"include_usage": True}}
