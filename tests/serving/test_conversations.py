"""An agent's turns and a chat's are found by their messages."""

import pytest

from parrot_backend.serving.call import Call
from parrot_backend.serving.sessions.conversations import Conversations
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from tests.programs import Nobody


def turn(call_id: str, *contents: str, answers: tuple[int, ...] = (1, 3, 5)) -> Call:
    messages = [
        ChatMessage(role="assistant" if i in answers else "user", content=content)
        for i, content in enumerate(contents)
    ]
    return Call(call_id, Nobody(), ChatRequest(messages=messages))


@pytest.fixture
def conversations() -> Conversations:
    return Conversations()


def test_a_request_continues_the_call_that_it_repeats(conversations: Conversations) -> None:
    for call in (
        turn("1", "hi"),
        turn("other", "hello"),
        turn("2", "hi", "ih", "and?"),
        turn("other again", "hello", "olleh", "more"),
        turn("3", "hi", "ih", "and?", "?dna", "so"),
    ):
        conversations.join(call)
    assert conversations.views() == [["1", "2", "3"], ["other", "other again"]]


def test_the_same_question_twice_is_no_conversation(conversations: Conversations) -> None:
    for call in (turn("1", "hi"), turn("2", "hi"), turn("3", "hi", "there", answers=())):
        conversations.join(call)
    assert conversations.views() == []


def test_a_turn_that_was_asked_outside_is_no_gap(conversations: Conversations) -> None:
    conversations.join(turn("1", "hi"))
    conversations.join(turn("3", "hi", "ih", "and?", "?dna", "so"))
    assert conversations.views() == [["1", "3"]]
