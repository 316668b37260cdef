"""What LlamaIndex wants to know of a model, and who has to be asked for it."""

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.base.llms.types import LLMMetadata
from pydantic import PrivateAttr, SerializerFunctionWrapHandler, model_serializer

_ASKED = ("context_window", "model_name")

Ask = Callable[[], Mapping[str, Any]]


class ServedMetadata(LLMMetadata):
    """Metadata of which the backend is asked for the context window and the model's name, when read.

    LlamaIndex looks before each call whether the model chats and calls tools, also in an event loop,
    which must not wait for a backend that starts.
    """

    _ask: Ask = PrivateAttr()

    @classmethod
    def lazily(cls, ask: Ask, **known: Any) -> "ServedMetadata":
        """Metadata with what is known; `ask` gives the rest."""
        metadata = cls(**known)
        metadata._ask = ask
        for name in _ASKED:
            if name not in known:
                del metadata.__dict__[name]
        return metadata

    def __getattr__(self, name: str) -> Any:
        """Only what is not known gets here."""
        if name not in _ASKED:
            return super().__getattr__(name)  # type: ignore[misc]  # pydantic hides it
        self.__dict__.update({**self._ask(), **self.__dict__})
        return self.__dict__[name]

    def plain(self) -> LLMMetadata:
        """All of it, as it stands."""
        return LLMMetadata(**{name: getattr(self, name) for name in LLMMetadata.model_fields})

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> Any:
        for name in _ASKED:
            getattr(self, name)
        return handler(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LLMMetadata):
            return NotImplemented
        return self.model_dump() == other.model_dump()

    def __copy__(self) -> LLMMetadata:  # type: ignore[override]
        return self.plain()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> LLMMetadata:  # type: ignore[override]
        return self.plain()

    def __reduce__(self) -> tuple[Any, ...]:
        return LLMMetadata.model_validate, (self.model_dump(),)
