"""Prompts: planned calls as requests, within what the context and the memory have room for."""

from collections.abc import Mapping, Sequence
from functools import partial

from parrot_backend.endpoints.lengths import characters, check_characters
from parrot_backend.engines.base import ModelCard
from parrot_backend.program.render import call_length, render_call
from parrot_backend.serving.call import Call
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.protocol import ChatRequest, SemanticCall

MOST_CHARACTERS = 2**28
"""Characters of the prompts of one session that wait or run, at most."""


class Prompts:
    """Renders the planned calls of one session, and counts what they hold until they end."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._held = 0

    def render(self, planned: SemanticCall, texts: Sequence[str], model: ModelCard) -> ChatRequest:
        """The request of a call whose inputs are all there.

        Raises:
            ContextLengthError: its prompt fits no context.
            InvalidRequestError: there is no room for it, or a message of it is too long.
        """
        length = call_length(planned, self._values, texts)
        check_characters(length, model)
        if self._held + length > MOST_CHARACTERS:
            raise InvalidRequestError(
                f"with {planned.label} the prompts that wait or run in the session would come to more "
                f"than {MOST_CHARACTERS} characters: use several sessions",
                code="text_too_long",
            )
        return render_call(planned, self._values, texts)

    def hold(self, call: Call) -> None:
        """Count a rendered call's until it ends; what it was asked is of no use from then on."""
        if call.request is not None:
            self._held += (held := characters(call.request))
            call.at_end(partial(self._let_go, call, held))

    def _let_go(self, call: Call, held: int) -> None:
        self._held -= held
        if call.request is not None:
            call.request = call.request.model_copy(update={"messages": []})
