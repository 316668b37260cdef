"""`join_texts`: the join that everybody writes as a lambda, as a step that can be planned."""

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable


class JoinTexts(RunnableSerializable[Sequence[str], str]):
    """Joins texts; inside a compiled chain the backend does it itself."""

    separator: str

    def invoke(
        self, input: Sequence[str], config: RunnableConfig | None = None, **kwargs: Any
    ) -> str:
        """The texts joined by the separator.

        Raises:
            TypeError: the input is not a list or tuple of strings.
        """
        return self._call_with_config(self._join, input, config, run_type="chain")

    def _join(self, texts: Sequence[str]) -> str:
        if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
            raise TypeError(
                "join_texts wants a list of strings; put StrOutputParser() behind the model to get "
                f"strings. Got: {str(texts)[:100]}"
            )
        return self.separator.join(texts)


def join_texts(separator: str = "\n\n") -> JoinTexts:
    """A runnable that joins a list of texts by `separator`.

    Same as `RunnableLambda(separator.join)`, but declared: `compile()` plans through it.
    """
    return JoinTexts(separator=separator)
