"""What the shadow does not run, and the run tells instead: retrievers, node parsers, others' code."""

from collections.abc import Hashable, Iterable
from copy import copy
from typing import Any

from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

Operation = tuple[Hashable, ...]

_ASYNC = {
    "aretrieve": "retrieve",
    "apostprocess_nodes": "postprocess_nodes",
    "acall": "__call__",
    "aquery": "query",
    "asynthesize": "synthesize",
    "agenerate": "generate",
    "aselect": "select",
}
_CHANGING = ("metadata", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
OPERATIONS = frozenset([*_ASYNC, *_ASYNC.values()])
"""Names of the methods that are operations."""


class Operations:
    """What operations gave; one with the same arguments is expected to give the same."""

    def __init__(self) -> None:
        self._results: dict[Operation, Any] = {}
        # Referred to, so that no other object gets its id.
        self._instances: dict[int, Any] = {}

    def gave(self, instance: Any, name: str, arguments: Iterable[Any], result: Any) -> None:
        """A method of the instance has ended."""
        self._instances[id(instance)] = instance
        self._results[_operation(instance, name, arguments)] = isolated(result)

    def of(self, instance: Any, name: str, arguments: Iterable[Any]) -> Any:
        """What it gave.

        Raises:
            KeyError: it has not been run yet.
        """
        return isolated(self._results[_operation(instance, name, arguments)])


def _operation(instance: Any, name: str, arguments: Iterable[Any]) -> Operation:
    known = [_known(each) for each in arguments]
    return id(instance), _ASYNC.get(name, name), *(each for each in known if each is not None)


def _known(argument: Any) -> Hashable:
    """What tells an argument from others; None where it has nothing that does."""
    if isinstance(argument, str):
        return argument
    if isinstance(argument, QueryBundle):
        return argument.query_str
    if isinstance(argument, NodeWithScore):
        return argument.node.node_id
    if isinstance(argument, BaseNode):
        return argument.node_id
    if isinstance(argument, list | tuple):
        return tuple(map(_known, argument))
    return None


def isolated(value: Any) -> Any:
    """A copy whose nodes can be changed; their texts and embeddings are the same objects."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind(map(isolated, value))
    if kind is dict:
        return {key: isolated(item) for key, item in value.items()}
    if isinstance(value, NodeWithScore):
        return value.model_copy(update={"node": isolated(value.node)})
    if isinstance(value, BaseNode) and kind.__module__ == BaseNode.__module__:
        held = {name: getattr(value, name, None) for name in _CHANGING}
        changed = {n: copy(each) for n, each in held.items() if type(each) in (dict, list)}
        return value.model_copy(update=changed)
    return value
