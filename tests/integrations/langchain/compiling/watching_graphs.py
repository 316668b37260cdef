"""What can be seen of a graph's run from outside, without what differs from run to run."""

import re
from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessageChunk
from langchain_core.runnables import RunnableConfig

VARYING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\b(chat|call|request)[-/][0-9a-f]+\b|\bcall_[0-9a-f]{24}\b|0x[0-9a-f]+|\b[0-9a-f]{32}\b|\d{4}-\d\d-\d\dT[\d:.+]+"
)


MODES = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]


def seen(value: Any) -> str:
    """A value without what differs from run to run: ids, times, the order of what runs in parallel."""
    return VARYING.sub("*", repr(value))


def streamed(items: list[Any]) -> list[str]:
    """What a stream told; the tokens of one model are joined, for their cut is a matter of time."""
    texts: dict[str, str] = {}
    others = []
    for item in items:
        message = next((m for m in _parts(item) if isinstance(m, BaseMessageChunk)), None)
        if message is None:
            others.append(seen(item))
        else:
            texts[str(message.id)] = texts.get(str(message.id), "") + message.text
    return sorted([*others, *texts.values()])


def _parts(item: Any) -> list[Any]:
    if isinstance(item, tuple):
        return [part for inner in item for part in _parts(inner)]
    return [item]


def thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid4())}}
