"""Conversations: requests of which each goes on where an answer to an earlier one ended."""

from parrot_backend.serving.call import Call
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest


class Conversations:
    """The conversations of one session, found by the messages alone.

    A request continues the call whose messages it repeats, with the assistant's message behind them:
    an agent's next step, a chat's next turn.
    """

    def __init__(self) -> None:
        self._by_messages: dict[int, list[str]] = {}
        self._all: list[list[str]] = []

    def join(self, call: Call) -> None:
        """Note a call that is about to run."""
        if not isinstance(call.request, ChatRequest):
            return
        key, conversation = 0, None
        for message in call.request.messages:
            if message.role == "assistant":
                conversation = self._by_messages.get(key, conversation)
            key = hash((key, message.role, message.content, _rest(message)))
        if conversation is None:
            conversation = []
            self._all.append(conversation)
        conversation.append(call.id)
        self._by_messages[key] = conversation

    def views(self) -> list[list[str]]:
        """The ids of the calls of each, in order; single calls are no conversation."""
        return [conversation for conversation in self._all if len(conversation) > 1]


def _rest(message: ChatMessage) -> str:
    """What few messages have. Texts are hashed as they are: long ones are often the same in many."""
    if message.name is None and message.tool_calls is None and message.tool_call_id is None:
        return ""
    return message.model_dump_json(exclude={"role", "content"})
