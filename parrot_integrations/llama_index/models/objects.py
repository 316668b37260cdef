"""What answers are that a schema describes: objects, also before they are whole."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
)
from llama_index.core.program.utils import create_flexible_model
from pydantic import BaseModel, ValidationError

from parrot_integrations.client.chat.formats import CUT_OFF, is_json, partial_json

M = TypeVar("M", bound=BaseModel)


def parsed(response: ChatResponse, output_cls: type[M]) -> M:
    """The object that a whole answer is.

    Raises:
        ValueError: it was cut off, or does not fit the class.
    """
    text = response.message.content or ""
    try:
        return output_cls.model_validate_json(text)
    except ValidationError as error:
        if response.additional_kwargs.get("finish_reason") == "length" and not is_json(text):
            raise ValueError(f"{output_cls.__name__}: {CUT_OFF}") from error
        raise


class _Growing:
    """Objects of answers that grow: of the class as soon as it takes them, else of any values."""

    def __init__(self, output_cls: type[BaseModel]) -> None:
        self._output_cls = output_cls
        self._flexible = create_flexible_model(output_cls)

    def object(self, response: ChatResponse) -> Any:
        text = response.message.content or ""
        try:
            return self._output_cls.model_validate_json(text)
        except ValidationError:
            values = partial_json(text)
        try:
            return self._output_cls.model_validate(values)
        except ValidationError:
            return self._flexible.model_validate(values if isinstance(values, dict) else {})


def objects(responses: ChatResponseGen, output_cls: type[M]) -> Generator[Any, None, None]:
    """The object after each response of a stream; one that was cut off stays as far as it came."""
    growing = _Growing(output_cls)
    for response in responses:
        yield growing.object(response)


async def aobjects(
    responses: ChatResponseAsyncGen, output_cls: type[M]
) -> AsyncGenerator[Any, None]:
    """As `objects`."""
    growing = _Growing(output_cls)
    async for response in responses:
        yield growing.object(response)
