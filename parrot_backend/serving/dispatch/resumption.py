"""`Resumption`: a call that runs again goes on where it stood."""

from dataclasses import replace
from typing import Generic, TypeVar

from parrot_backend.engines.base import Delta, ToolCallDelta
from parrot_backend.serving.call import Call
from parrot_backend.wire.errors import EndpointLostError

Part = TypeVar("Part", str, tuple[int, ...])


class AnswerDivergedError(EndpointLostError):
    """The other run gives another answer than the one that was told in part."""

    default_code = "answer_diverged"

    def __init__(self) -> None:
        super().__init__(
            "what ran the call died, and run again it gives another answer than the one that was "
            "told in part: send the request again"
        )


class Resumption:
    """Takes from the deltas of another run what was told already.

    The same tokens may come in other pieces, and text that may be held back comes sooner or later, so
    tokens, their logprobs, text and each tool call's arguments are counted apart. Whatever differs
    from what was told is an error, for nobody can take back what was read. Where one of the two engines
    tells only how many tokens there are, and not which, they are counted and not compared.
    """

    def __init__(self, call: Call) -> None:
        self._counted = call.completion_tokens
        self._are_told = len(call.tokens) == self._counted
        self._comes_with_tokens = False
        self._tokens = _Told(tuple(call.tokens))
        self._text = _Told(call.text)
        self._logprobs = len(call.logprobs)
        self._names: list[str | None] = [tool.function.name for tool in call.tool_calls]
        self._arguments = [_Told(tool.function.arguments) for tool in call.tool_calls]

    def cut(self, delta: Delta) -> Delta | None:
        """What is new in the next delta, or None where nothing is.

        Raises:
            AnswerDivergedError: it differs from what was told.
        """
        told = min(len(delta.logprobs), self._logprobs)
        self._logprobs -= told
        tokens, untold = self._cut_tokens(delta)
        rest = replace(
            delta,
            text=self._text.cut(delta.text),
            tokens=tokens,
            untold_tokens=untold,
            logprobs=delta.logprobs[told:],
            tool_calls=tuple(new for p in delta.tool_calls if (new := self._cut_piece(p))),
        )
        if delta.finish_reason is not None:
            if self._missing:
                raise AnswerDivergedError
            return rest
        told_more = rest.text or rest.tokens or rest.untold_tokens or rest.logprobs
        return rest if told_more or rest.tool_calls else None

    def _cut_tokens(self, delta: Delta) -> tuple[tuple[int, ...], int]:
        """Those beyond what was told, and how many untold ones are."""
        tokens, untold = delta.tokens, delta.untold_tokens
        again = min(len(tokens), self._counted)
        again_untold = min(untold, self._counted - again)
        self._counted -= again + again_untold
        self._comes_with_tokens |= bool(tokens or untold)
        self._are_told = self._are_told and not untold
        if self._are_told:
            return self._tokens.cut(tokens), 0
        return tokens[again:], untold - again_untold

    @property
    def _missing(self) -> bool:
        """Whether something was told that has not come again."""
        comparable = self._are_told and self._comes_with_tokens
        told = self._text.missing or (comparable and self._tokens.missing)
        return told or any(self._names) or any(part.missing for part in self._arguments)

    def _cut_piece(self, piece: ToolCallDelta) -> ToolCallDelta | None:
        """The piece without what was told; a call that was told keeps the id that it had."""
        if piece.index >= len(self._names):
            return piece
        if piece.name is not None:
            if piece.name != self._names[piece.index]:
                raise AnswerDivergedError
            self._names[piece.index] = None
        rest = self._arguments[piece.index].cut(piece.arguments)
        return ToolCallDelta(piece.index, rest) if rest else None


class _Told(Generic[Part]):
    """What was told, and how much of it has come again."""

    def __init__(self, told: Part) -> None:
        self._told: Part = told
        self._again = 0

    @property
    def missing(self) -> bool:
        return self._again < len(self._told)

    def cut(self, new: Part) -> Part:
        """What is beyond; up to there the two have to be equal."""
        expected = self._told[self._again : self._again + len(new)]
        if new[: len(expected)] != expected:
            raise AnswerDivergedError
        self._again += len(expected)
        return new[len(expected) :]
