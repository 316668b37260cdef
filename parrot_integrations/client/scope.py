"""Where requests belong: what a client's context says of their thread, task group and objective."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import uuid4

from parrot_backend.wire.protocol import CallScope

_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")

active_scope: ContextVar[CallScope] = ContextVar("parrot_active_scope", default=CallScope())  # noqa: B039
"""What holds for the requests that are sent inside, where nothing more is known of them."""


@contextmanager
def task_group(size: int | None = None) -> Iterator[None]:
    """The requests that are sent inside, by this thread or task and those it starts, are siblings.

    Only the last of them to end matters, so the backend serves them as one batch.

    Args:
        size: how many there will be, where that is known.
    """
    group = {"group": f"group-{uuid4().hex}", "group_size": size}
    token = active_scope.set(active_scope.get().model_copy(update=group))
    try:
        yield
    finally:
        active_scope.reset(token)


def wire_name(text: str) -> str:
    """A text as a name that the wire takes: itself, or a digest that stands for it."""
    return text if _NAME.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()
