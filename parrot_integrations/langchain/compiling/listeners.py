"""Which functions that make a configuration only add listeners to it."""

from collections.abc import Callable
from types import FunctionType

from langchain_core.runnables import RunnableConfig

Factory = Callable[[RunnableConfig], RunnableConfig]

_MODULE = "langchain_core.runnables.base"
_FACTORIES = {
    "Runnable.with_listeners.<locals>.<lambda>",
    "Runnable.with_alisteners.<locals>.<lambda>",
    "RunnableBinding.with_listeners.<locals>.listener_config_factory",
}


def only_listens(factory: Factory) -> bool:
    """Whether it is LangChain's own, which adds a listener's callbacks and nothing else.

    Another function may change what is called: its effect on the configuration is not known.
    """
    if not isinstance(factory, FunctionType) or factory.__module__ != _MODULE:
        return False
    return factory.__qualname__ in _FACTORIES
