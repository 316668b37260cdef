"""What LangChain's middleware may expect of a model behind `ChatParrot`."""

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.language_models import ModelProfile

PROFILE = ModelProfile(
    text_inputs=True,
    text_outputs=True,
    image_inputs=False,
    image_url_inputs=False,
    pdf_inputs=False,
    audio_inputs=False,
    video_inputs=False,
    image_tool_message=False,
    pdf_tool_message=False,
    image_outputs=False,
    audio_outputs=False,
    video_outputs=False,
    reasoning_output=False,
    tool_calling=True,
    tool_choice=True,
    tool_call_streaming=True,
    structured_output=True,
    temperature=True,
)
"""True of every model: the backend enforces tool calls and schemas, whatever the model."""


def with_context_length(
    profile: ModelProfile, models: Iterable[Mapping[str, Any]], name: str | None
) -> ModelProfile:
    """The profile with the context length, prompt and answer together, of the model of that name.

    Args:
        profile: it is not changed.
        models: those that the backend serves.
        name: of one of them; None for the first.
    """
    for model in models:
        if name in (None, model["id"]):
            tokens = model["max_model_len"]
            return {**profile, "max_input_tokens": tokens, "max_output_tokens": tokens}
    return profile
