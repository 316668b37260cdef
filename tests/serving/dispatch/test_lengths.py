"""What is expected of an answer's length."""

import pytest

from parrot_backend.serving.dispatch.lengths import Lengths, estimated_prompt
from parrot_backend.wire.text_protocol import PromptRequest
from tests.serving.dispatch.doubles import a_call


def test_a_site_is_known_by_its_answers_and_an_unknown_one_by_all() -> None:
    lengths = Lengths()
    before = lengths.expected("long")
    for _ in range(30):
        lengths.learn("long", 1000)
    assert lengths.expected("long") == 1000
    assert before < lengths.expected("unknown") <= 1000
    lengths.learn("short", 10)
    assert lengths.expected("short") == 10
    lengths.learn("short", 30)
    assert 10 < lengths.expected("short") < 30


def test_what_changes_is_learned_anew() -> None:
    lengths = Lengths()
    for tokens in [500] * 10 + [50] * 20:
        lengths.learn("site", tokens)
    assert lengths.expected("site") == pytest.approx(50, rel=0.1)


def test_no_answer_is_longer_than_it_may_be() -> None:
    lengths = Lengths()
    lengths.learn("site", 1000)
    assert lengths.expected("site", 10) == 10
    assert lengths.expected("unknown", 10) == 10


def test_the_table_is_bounded_and_forgets_the_longest_unused() -> None:
    lengths = Lengths()
    lengths.learn("kept", 7)
    for number in range(12_000):
        lengths.learn(f"{number}", 500)
        if number % 1000 == 0:
            lengths.learn("kept", 7)
    assert len(lengths) == 10_000
    assert lengths.expected("kept") == 7
    lengths.learn("", 9)  # of no site
    assert len(lengths) == 10_000


def test_a_prompt_is_estimated_by_its_characters() -> None:
    assert estimated_prompt(PromptRequest(prompt="a" * 400)) == 100
    assert estimated_prompt(PromptRequest(prompt=[1] * 400)) == 400
    chat = a_call("a" * 40, system="b" * 400).request
    assert chat is not None
    assert estimated_prompt(chat) == 110
