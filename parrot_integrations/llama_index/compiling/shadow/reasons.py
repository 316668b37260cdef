"""Why a shadow ends where it does, and what to do about it: for who reads an explanation."""

from collections.abc import Iterator
from textwrap import shorten
from traceback import walk_tb
from types import FrameType
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.node_parser import NodeParser
from llama_index.core.types import BaseOutputParser

from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.ledger import Ledger
from parrot_integrations.planning.values import Break

_FRAMEWORK = "llama_index."
_WIDTH = 240
_DEPTH = 2

_STAND_INS = ("Opaque", "AwaitedObject")  # Python's own messages name them

_RETRIEVES = (
    "retrieves, which only the run does",
    "What comes behind it is planned when the nodes are there. Where nobody could notice that it is "
    "asked ahead of the run: compile(..., pure_retrievers=True).",
)
_OWN: dict[type, tuple[str, str]] = {
    SimpleChatEngine: ("makes one call a turn, which nothing can make sooner", ""),
    BaseChatEngine: (
        "begins a turn with what the model or a retriever says, which only the run has",
        "What follows of it is planned when that is there. A turn of one call has nothing to gain.",
    ),
    NodeParser: (
        "gives nodes that are known only when it has run",
        "What comes behind it is planned when they are there. Of nodes that are there already, a "
        "pipeline of the steps behind it tells at once: explain(nodes=...).",
    ),
    object: (
        "does more than to make prompts, to ask and to put answers together: only the run may run it",
        "What it asks by others of LlamaIndex's classes, and what comes behind it, is planned when the "
        "run is there.",
    ),
}
"""Of the framework's own classes, the narrower before the wider."""

_OTHERS = (
    "is not code that planning may run",
    "What it asks by LlamaIndex's own classes, and what comes behind it, is planned when the run is "
    "there.",
)


def not_run(original: Any, kind: type) -> ShadowEnd:
    """The end at an object, of this class, whose code the shadow does not run."""
    if isinstance(original, BaseRetriever):
        reason, remedy = _RETRIEVES
    elif kind.__module__.startswith(_FRAMEWORK):
        reason, remedy = next(told for own, told in _OWN.items() if issubclass(kind, own))
    else:
        reason, remedy = _OTHERS
    return ShadowEnd(getattr(original, "__qualname__", kind.__qualname__), reason, remedy)


def failed(error: BaseException, where: str, ledger: Ledger) -> Break:
    """The break where the framework's own code failed: for want of an answer, or as it does in the run.

    Args:
        error: what it raised.
        where: the call with which the shadow began.
        ledger: of what was asked.
    """
    said = _said(error)
    message = shorten(said, _WIDTH, placeholder=" …").rstrip(".")
    own = list(_methods(error))
    kind, frames = own[-1] if own else (None, [])
    held = (value for frame in frames for value in frame.f_locals.values())
    if ledger.markers.is_in(said) or any(_awaits(value, ledger) for value in held):
        is_parser = kind is not None and issubclass(kind, BaseOutputParser)
        verb = "parsed" if is_parser else "needed"
        return Break(
            kind.__qualname__ if kind is not None else where,
            f"what the model says is {verb} here",
            "What comes behind it is planned when that is there.",
        )
    if any(name in message for name in _STAND_INS):
        return Break(where, "needs what only the run has")
    told = f"raises {type(error).__name__}{f': {message}' if message else ''}"
    return Break(where, f"{told}, before all answers are there" if ledger.awaited else told)


def _said(error: BaseException) -> str:
    """An error's message; empty where what stands for an object of the run's is asked for its text."""
    try:
        return str(error)
    except (Exception, ShadowEnd):
        return ""


def _methods(error: BaseException) -> Iterator[tuple[type, list[FrameType]]]:
    """The framework's methods through which an error went: their classes, and all frames from there."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for number, frame in enumerate(frames):
        if str(frame.f_globals.get("__name__")).startswith(_FRAMEWORK) and "self" in frame.f_locals:
            mro = type(frame.f_locals["self"]).__mro__
            kinds = (kind for kind in mro if kind.__module__.startswith(_FRAMEWORK))
            if (kind := next(kinds, None)) is not None:
                yield kind, frames[number:]


def _awaits(value: Any, ledger: Ledger, depth: int = _DEPTH) -> bool:
    """Whether an answer to come is in a value, which is not asked what it is."""
    kind = type(value)
    if kind is CompletionResponse:
        value = value.text
    elif kind is ChatResponse:
        value = value.message.content
    if issubclass(type(value), str):
        return ledger.markers.is_in(value)
    if kind is dict:
        value = [*value.values()]
    items = value if type(value) in (list, tuple) and depth else ()
    return any(_awaits(item, ledger, depth - 1) for item in items)
