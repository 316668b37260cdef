"""Constrained generation: which tokens a sequence's grammar allows next, through llguidance.

Grammars come from clients. Compiling and matching have limits, so that none takes more than a few
seconds to compile, in a thread that nobody else waits for, nor holds a step up for long.
"""

import asyncio
import functools
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher, LLParserLimits
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from torch import Tensor

from parrot_backend.engines.base import JSON_STYLE, Grammar
from parrot_backend.engines.torch_engine.choose.vocabulary import Vocabulary
from parrot_backend.wire.errors import InvalidRequestError, UnavailableError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_LIMITS = LLParserLimits(
    max_items_in_row=500,
    max_lexer_states=20_000,
    step_lexer_fuel=50_000,
    step_max_items=10_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
_LONGEST_SOURCE = 2**17
# llguidance recurses into rules: the longest source, one long chain of them, needs a fifth of this.
_STACK_BYTES = 2**28
_LONGEST_REASON = 400
_LONGEST_LINE = 120


class Constraint:
    """Where one sequence is in its grammar.

    `forced` are the next tokens, where it allows only one text: those that the tokenizer itself makes
    of it. Other tokens make the same text; that it is always these makes an answer the same, whether
    it is computed token by token or ahead.
    """

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self.matcher = matcher
        self._param = param
        self.forced = matcher.compute_ff_tokens()

    @property
    def satisfied(self) -> bool:
        """Whether the text matches, and nothing can follow."""
        return self.matcher.is_stopped()

    def accept(self, token: int) -> None:
        """Go on with `token`, which was allowed.

        Raises:
            InvalidRequestError: the grammar is over a limit.
        """
        self.matcher.consume_token(token)
        self.check()
        self.forced = self.forced[1:] or self.matcher.compute_ff_tokens()

    def check(self) -> None:
        """Look whether the matcher is still in order.

        Raises:
            InvalidRequestError: the grammar is over a limit, or it has come to where nothing fits.
        """
        if self.matcher.is_error():
            raise _refusal(self.matcher.get_error(), self._param)


class Grammars:
    """Compiles grammars, in a thread of its own.

    Each request has a matcher of its own, which takes 2 ms for one tool and 30 ms for sixty. A copy
    takes a hundredth, and shares its original's lexer (llguidance 1.9, `deep_copy` and `reset` alike):
    the states of all copies count against one limit, so that a request could fail by what others wrote.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._thread = _roomy_thread()

    async def constraint(self, grammar: Grammar) -> Constraint:
        """The beginning of `grammar`.

        Raises:
            InvalidRequestError: it is no grammar, nothing can match it, or it is over a limit.
            UnavailableError: `close` was called.
        """
        try:
            compiling = self._thread.submit(self.compile, grammar)
        except RuntimeError as error:
            raise UnavailableError("the engine is shutting down") from error
        return await asyncio.wrap_future(compiling)

    def compile(self, grammar: Grammar) -> Constraint:
        """As `constraint`, in this thread."""
        if len(grammar.source) > _LONGEST_SOURCE:
            reason = f"it has {len(grammar.source)} characters, the most are {_LONGEST_SOURCE}"
            raise _refusal(reason, grammar.param)
        tokens = self._vocabulary.prepare()
        try:
            matcher = LLMatcher(tokens, _rules(grammar), log_level=0, limits=_LIMITS)
        except ValueError as error:
            raise _refusal(str(error), grammar.param) from error
        if not matcher.is_error():
            # The first mask shows whether there is any text that fits.
            matcher.compute_bitmask()
        constraint = Constraint(matcher, grammar.param)
        constraint.check()
        return constraint

    def close(self) -> None:
        """Let the thread go once it has nothing left to do."""
        self._thread.shutdown(wait=False)


def _roomy_thread() -> ThreadPoolExecutor:
    """One thread with a stack of `_STACK_BYTES`, of which only what is used is real."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="parrot-grammar")
    usual = threading.stack_size(_STACK_BYTES)
    try:
        thread.submit(int).result()
    finally:
        threading.stack_size(usual)
    return thread


def _rules(grammar: Grammar) -> str:
    match grammar.kind:
        case "json_schema":
            style = cast("JsonCompileOptions", JSON_STYLE)
            return LLMatcher.grammar_from_json_schema(grammar.source, defaults=style)
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.source)
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.source)


def _refusal(reason: str, param: str) -> InvalidRequestError:
    if reason.startswith("NoExtension"):
        reason = "there is no text that it allows"
    reason = " ".join(_without_neighbours(reason).replace("<non-verbose/>", "").split())
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[: _LONGEST_REASON // 2]} ... {reason[-_LONGEST_REASON // 2 :]}"
    return InvalidRequestError(
        f"the grammar can't be used: {reason}", param=param, code="invalid_grammar"
    )


def _without_neighbours(reason: str) -> str:
    """Of the lines of a grammar that are shown around an error, only the one that is at fault."""
    at = re.match(r"at (\d+)\(\d+\): (.*?)(?=\n +\d+ \| )", reason, re.DOTALL)
    line = at and re.search(rf"^ +{at[1]} \| (.*)", reason, re.MULTILINE)
    return f"{at[2]}, in: {line[1][:_LONGEST_LINE]}" if at and line else reason


@functools.cache
def _executor() -> LLExecutor:
    return LLExecutor()


def allowed_tokens(constraints: Sequence[Constraint], vocabulary: int) -> Tensor:
    """`[constraints, vocabulary]`, True where a token is allowed; computed in parallel threads."""
    bits = allocate_token_bitmask(len(constraints), vocabulary)
    matchers = [(constraint.matcher, row) for row, constraint in enumerate(constraints)]
    fill_next_token_bitmask_par(_executor(), matchers, bits)
    allowed = np.unpackbits(bits.view(np.uint8), axis=1, count=vocabulary, bitorder="little")
    return torch.from_numpy(allowed).bool()
