"""Batches as task groups: the backend learns that the calls that LangChain makes of one are one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from parrot_integrations.client.scope import task_group


def siblings(inputs: Sequence[Any]) -> AbstractContextManager[None]:
    """The scope of calls for these inputs: a task group, where there are several."""
    return task_group(len(inputs)) if len(inputs) > 1 else nullcontext()


class SiblingCalls:
    """Mixin for models, before LangChain's class: the calls of one batch are one task group.

    A batch of a chain comes here too, for LangChain takes it step by step. Results that are wanted
    as they come (`batch_as_completed`) are no group.
    """

    def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """See `Runnable.batch`."""
        with siblings(inputs):
            return super().batch(inputs, *args, **kwargs)  # type: ignore[misc,no-any-return]

    async def abatch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """See `Runnable.abatch`."""
        with siblings(inputs):
            return await super().abatch(inputs, *args, **kwargs)  # type: ignore[misc,no-any-return]
