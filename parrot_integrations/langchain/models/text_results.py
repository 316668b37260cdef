"""Completions in OpenAI's wire form as LangChain's results."""

from collections.abc import Mapping
from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from parrot_integrations.langchain.models.results import response_metadata, usage_metadata


def llm_result(response: Mapping[str, Any], prompts: int) -> LLMResult:
    """The result of a completion of so many prompts; its choices are in the prompts' order."""
    choices = [Generation(text=c["text"], generation_info=_info(c)) for c in response["choices"]]
    n = len(choices) // prompts
    return LLMResult(
        generations=[list(choices[i * n : (i + 1) * n]) for i in range(prompts)],
        llm_output={**response_metadata(response), **_usage(response)},
    )


def _info(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {"finish_reason": choice["finish_reason"], "logprobs": choice["logprobs"]}


def _usage(response: Mapping[str, Any]) -> dict[str, Any]:
    """All prompts' tokens as LangChain has them, beside OpenAI's, which callbacks count."""
    usage = usage_metadata(response.get("usage"))
    return {"usage_metadata": usage} if usage else {}


class TextChunkTranslator:
    """Turns the chunks of one streamed completion into LangChain's.

    What is known about the answer as a whole is in one last chunk, empty, as merged chunks join
    strings.
    """

    def __init__(self) -> None:
        self._last: Mapping[str, Any] = {}
        self._finish_reason: str | None = None

    def content(self, chunk: Mapping[str, Any]) -> GenerationChunk | None:
        """What a chunk adds to the text; None where it adds nothing."""
        self._last = chunk
        if not chunk["choices"]:
            return None
        choice = chunk["choices"][0]
        self._finish_reason = choice["finish_reason"] or self._finish_reason
        if not choice["text"] and not choice["logprobs"]:
            return None
        info = {"logprobs": choice["logprobs"]} if choice["logprobs"] else None
        return GenerationChunk(text=choice["text"], generation_info=info)

    def last(self) -> GenerationChunk:
        """The empty chunk that ends the stream."""
        info = {"finish_reason": self._finish_reason, **response_metadata(self._last)}
        return GenerationChunk(text="", generation_info={**info, **_usage(self._last)})
