"""Parsers of structured answers that refuse one that was cut off.

LangChain's own complete partial JSON, as they must for streams. Of a whole answer that ended at its
token limit they would make a value that the model never finished.
"""

from collections.abc import Callable
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.pydantic import TBaseModel  # noqa: F401 - mypy's plugin needs it here

from parrot_integrations.client.chat.formats import CUT_OFF, is_json


class WholeJsonParser(JsonOutputParser):
    """`JsonOutputParser` for whole answers."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The JSON of an answer.

        Raises:
            OutputParserException: it is not JSON, or was cut off.
        """
        if not partial:
            _refuse_cut_off(result, _is_json_text)
        return super().parse_result(result, partial=partial)


class WholePydanticParser(PydanticOutputParser[Any]):
    """`PydanticOutputParser` for whole answers."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The object that an answer describes.

        Raises:
            OutputParserException: it is not JSON, was cut off, or does not fit the class.
        """
        if not partial:
            _refuse_cut_off(result, _is_json_text)
        return super().parse_result(result, partial=partial)


class WholeToolArgumentsParser(JsonOutputKeyToolsParser):
    """`JsonOutputKeyToolsParser` for whole answers."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The arguments of the first call.

        Raises:
            OutputParserException: they were cut off.
        """
        if not partial:
            _refuse_cut_off(result, _has_valid_calls)
        return super().parse_result(result, partial=partial)


class WholePydanticToolParser(PydanticToolsParser):
    """`PydanticToolsParser` for whole answers."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The first call's arguments as an object of the tool's class.

        Raises:
            OutputParserException: they were cut off, or do not fit the class.
        """
        if not partial:
            _refuse_cut_off(result, _has_valid_calls)
        return super().parse_result(result, partial=partial)


def _refuse_cut_off(result: list[Generation], is_whole: Callable[[AIMessage], bool]) -> None:
    message = result[0].message if isinstance(result[0], ChatGeneration) else None
    if not isinstance(message, AIMessage) or is_whole(message):
        return
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException(
            CUT_OFF,
            llm_output=message.text,
        )


def _is_json_text(message: AIMessage) -> bool:
    return is_json(message.text)


def _has_valid_calls(message: AIMessage) -> bool:
    return bool(message.tool_calls) and not message.invalid_tool_calls
