"""One pass of the shadow: the framework's code, from a call of its on to where it needs the run."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, NamedTuple

from parrot_integrations.llama_index.compiling.shadow import standins as standins  # registers
from parrot_integrations.llama_index.compiling.shadow.copies import ShadowCopies
from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.packing import packing
from parrot_integrations.llama_index.compiling.shadow.reading import aused_up, used_up
from parrot_integrations.llama_index.compiling.shadow.reasons import failed
from parrot_integrations.llama_index.compiling.shadow.silence import silence
from parrot_integrations.llama_index.compiling.shadow.variants import BUILT
from parrot_integrations.planning.values import Break

logger = logging.getLogger(__name__)

_STORES = "storage_context"


class Target(NamedTuple):
    """A call whose code the shadow runs: a method of an object, or a class that makes one."""

    instance: Any
    method: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    answers: int = 0
    """How many answers the run had before the call."""


def run_shadow(target: Target, copies: ShadowCopies) -> tuple[Break | None, float]:
    """Run the shadow of a call as far as it gets.

    Returns:
        Where it ended before its code did, and how many seconds the packing of prompts took.

    In a thread of its own: the framework's code looks for an event loop, and may make one, or leave
    tasks in the caller's.
    """
    context, ended = copy_context(), list[tuple[Break | None, float]]()
    thread = threading.Thread(
        target=lambda: ended.append(context.run(_run, target, copies)), name="parrot-shadow"
    )
    thread.start()
    thread.join()
    return ended[0] if ended else (None, 0.0)


def _run(target: Target, copies: ShadowCopies) -> tuple[Break | None, float]:
    with silence(), packing() as seconds:
        return _stopped(target, copies), sum(seconds)


def _stopped(target: Target, copies: ShadowCopies) -> Break | None:
    try:
        copies.ledger.begin(target.answers)
        kwargs = {name: copies.of(each) for name, each in target.kwargs.items()}
        if "show_progress" in kwargs:
            kwargs["show_progress"] = False
        if isinstance(target.instance, type):
            kwargs.pop(_STORES, None)
            call = BUILT[target.instance]
        else:
            call = getattr(copies.of(target.instance), target.method)
        result = call(*map(copies.of, target.args), **kwargs)
        if inspect.iscoroutine(result):
            asyncio.run(_read(result))
        else:
            used_up(result)
    except ShadowEnd as end:
        return end.stop
    except BaseException as error:
        logger.debug("the shadow of %s ended", target.method, exc_info=True)
        where = f"{type(target.instance).__qualname__}.{target.method}"
        return failed(error, where, copies.ledger)

    return None


async def _read(result: Awaitable[Any]) -> None:
    await aused_up(await result)
