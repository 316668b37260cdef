"""Documents as texts, as `format_document` and `create_stuff_documents_chain` make them."""

from collections.abc import Mapping, Sequence
from inspect import getclosurevars
from types import FunctionType
from typing import Any, NamedTuple

from langchain_core.documents import Document
from langchain_core.prompts import BasePromptTemplate

from parrot_integrations.langchain.compiling.rules.inputs import is_dict
from parrot_integrations.langchain.compiling.rules.prompts import string_text
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import BreakError, Text, concat, need

_STUFF = "langchain_classic.chains.combine_documents.stuff"
_FORMAT_DOCS = "create_stuff_documents_chain.<locals>.format_docs"


class Page(NamedTuple):
    """A document whose text may be an answer to come."""

    text: str | Text
    metadata: Mapping[str, Any]


def pages(value: Any) -> list[Page]:
    """The documents of a list.

    Raises:
        BreakError: it is not a list of documents.
    """
    if type(need(value)) not in (list, tuple) or not all(type(d) is Document for d in value):
        raise BreakError("gets something that is not a list of documents")
    return [Page(document.page_content, document.metadata) for document in value]


def page_text(plan: Plan, page: Page, prompt: BasePromptTemplate[Any]) -> Text:
    """What `format_document` makes of it.

    Raises:
        BreakError: the prompt can't be planned, or asks for metadata that is not there.
    """
    return string_text(plan, prompt, {"page_content": page.text, **page.metadata})


def joined_pages(
    plan: Plan, documents: Sequence[Page], prompt: BasePromptTemplate[Any], separator: str
) -> Text:
    """Their texts, joined by a separator."""
    texts = [page_text(plan, page, prompt) for page in documents]
    between = [Text((separator,))] * len(texts)
    return concat([text for pair in zip(between, texts, strict=True) for text in pair][1:])


def format_documents(plan: Plan, function: Any, value: Any) -> Text | None:
    """What the function inside `create_stuff_documents_chain` gives; None if it is another one.

    Raises:
        BreakError: it is that one, in a form that is not recognized, or it gets no documents.
    """
    if not isinstance(function, FunctionType) or function.__module__ != _STUFF:
        return None
    settings = getclosurevars(function).nonlocals
    prompt, separator = settings.get("_document_prompt"), settings.get("document_separator")
    name = settings.get("document_variable_name")
    if function.__qualname__ != _FORMAT_DOCS or not prompt or not isinstance(separator, str):
        raise BreakError(
            "formats documents in a way that is not recognized, by this version of langchain-classic",
            "What comes after it is planned when the documents are formatted.",
        )
    if not is_dict(value) or name not in value:
        raise BreakError("gets no documents")
    return joined_pages(plan, pages(value[name]), prompt, separator)
