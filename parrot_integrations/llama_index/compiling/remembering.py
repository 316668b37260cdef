"""Objects of the framework's whose prompts are packed by helpers that remember."""

import copy
from typing import Any

from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.utilities.token_counting import TokenCounter
from pydantic import BaseModel

from parrot_integrations.llama_index.compiling.shadow.copies import is_framework
from parrot_integrations.llama_index.compiling.shadow.packing import (
    ChunkMemory,
    RememberingHelper,
    RememberingTokenizer,
)

_MOST_DEPTH = 6


def remembering(value: Any, depth: int = _MOST_DEPTH) -> Any:
    """An object whose prompt helpers remember; itself where it has none.

    What leads to a prompt helper is copied, everything else is shared.
    """
    if type(value) is PromptHelper and type(value._token_counter) is TokenCounter:
        return _helper(value)
    if not depth:
        return value
    if type(value) in (list, tuple):
        items = [remembering(each, depth - 1) for each in value]
        return value if all(map(_is, items, value)) else type(value)(items)
    if type(value) is dict:
        held = {key: remembering(each, depth - 1) for key, each in value.items()}
        return value if all(map(_is, held.values(), value.values())) else held
    if not is_framework(value) or not hasattr(value, "__dict__"):
        return value
    held = {name: remembering(each, depth - 1) for name, each in vars(value).items()}
    if all(map(_is, held.values(), vars(value).values())):
        return value
    copied = shallow(value)
    vars(copied).update(held)
    return copied


def _helper(helper: PromptHelper) -> PromptHelper:
    copied: Any = shallow(helper)
    counter = copied._token_counter = copy.copy(helper._token_counter)
    counter.tokenizer = RememberingTokenizer(counter.tokenizer)
    vars(copied)["memory"] = ChunkMemory()
    object.__setattr__(copied, "__class__", RememberingHelper)
    return copied  # type: ignore[no-any-return]


_STATE = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def shallow(value: Any) -> Any:
    """As `copy.copy`, by which classes that are deprecated warn once more."""
    copied: Any = object.__new__(type(value))
    for name in _STATE if isinstance(value, BaseModel) else ["__dict__", *_slots(type(value))]:
        if hasattr(value, name):
            held = getattr(value, name)
            object.__setattr__(copied, name, copy.copy(held) if name in _STATE else held)
    return copied


def _slots(kind: type) -> list[str]:
    found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for slots in found for name in ([slots] if isinstance(slots, str) else slots)]
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _is(one: Any, other: Any) -> bool:
    return one is other
