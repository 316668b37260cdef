"""`with_structured_output`: a model bound to a schema, and the parser of its answers.

In every method the backend lets the model write nothing but what the schema allows.
"""

from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from parrot_integrations.client.chat.choices import tool_name
from parrot_integrations.langchain.models.parsers import (
    WholeJsonParser,
    WholePydanticParser,
    WholePydanticToolParser,
    WholeToolArgumentsParser,
)
from parrot_integrations.langchain.models.tools import (
    Schema,
    wire_response_format,
    wire_tools,
)

Method = Literal["json_schema", "function_calling", "json_mode"]
Structured = Runnable[LanguageModelInput, Any]


def structured_output(
    llm: BaseChatModel,
    schema: Schema | None,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    **kwargs: Any,
) -> Structured:
    """A runnable from a prompt to what `schema` describes; see `ChatParrot.with_structured_output`.

    Raises:
        ValueError: a method that there is not, no schema, or `strict` with json_mode.
    """
    _check(schema, method, strict)
    told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    bind = _call_bound if method == "function_calling" else _format_bound
    model, parser = bind(llm, schema, strict, ls_structured_output_format=told, **kwargs)
    return _with_raw(model, parser) if include_raw else model | parser


def _check(schema: Schema | None, method: str, strict: bool | None) -> None:
    if method not in ("json_schema", "function_calling", "json_mode"):
        raise ValueError(
            f"method is {method!r}; give 'json_schema', 'function_calling' or 'json_mode'"
        )
    if schema is None and method != "json_mode":
        raise ValueError(f"method {method!r} needs a schema; only 'json_mode' goes without")
    if strict is not None and method == "json_mode":
        raise ValueError("strict has no meaning with method 'json_mode'")


def _format_bound(
    llm: BaseChatModel, schema: Schema | None, strict: bool | None, **kwargs: Any
) -> tuple[Runnable[LanguageModelInput, AIMessage], OutputParserLike[Any]]:
    """The answer's text is the JSON; without a schema any object."""
    if schema is None:
        return llm.bind(response_format={"type": "json_object"}, **kwargs), WholeJsonParser()
    model = llm.bind(response_format=wire_response_format(schema, strict), **kwargs)
    if is_pydantic(schema):
        return model, WholePydanticParser(pydantic_object=schema)
    return model, WholeJsonParser()


def _call_bound(
    llm: BaseChatModel, schema: Any, strict: bool | None, **kwargs: Any
) -> tuple[Runnable[LanguageModelInput, AIMessage], OutputParserLike[Any]]:
    """The JSON is the arguments of a tool that must be called, once."""
    name = tool_name(wire_tools([schema])[0])
    model = llm.bind_tools(
        [schema], tool_choice=name, strict=strict, parallel_tool_calls=False, **kwargs
    )
    if is_pydantic(schema):
        return model, WholePydanticToolParser(tools=[schema], first_tool_only=True)
    return model, WholeToolArgumentsParser(key_name=name, first_tool_only=True)


def is_pydantic(schema: Any) -> bool:
    """Whether it is a pydantic class, whose objects are then the result."""
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _with_raw(
    model: Runnable[LanguageModelInput, AIMessage], parser: OutputParserLike[Any]
) -> Structured:
    """LangChain's form of `include_raw`: {"raw", "parsed", "parsing_error"}, and no exception."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    not_parsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks(
        [not_parsed], exception_key="parsing_error"
    )
