"""Chunks of a stream added up, as LangChain's own steps do before they go on with the whole."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import BaseMessageChunk
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.utils import AddableDict


def merged(chunks: Sequence[Any]) -> list[Any]:
    """The one value that chunks make up; empty where adding them would run code of the user's."""
    if all(type(chunk) in (str, TextAccessor) for chunk in chunks):
        return ["".join(chunks)]
    if len(chunks) == 1:
        return list(chunks)
    if all(isinstance(chunk, BaseMessageChunk) for chunk in chunks) or any(
        all(type(chunk) is kind for chunk in chunks) for kind in (list, AddableDict)
    ):
        return [reduce(add, chunks)]
    return [chunks[-1]] if all(type(chunk) is dict for chunk in chunks) else []
