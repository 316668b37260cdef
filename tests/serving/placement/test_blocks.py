"""Prompts have a block in common where they are the same up to its end."""

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.serving.placement.blocks import blocks_of, common, leading
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import PromptRequest


def of(prompt: str | list[int], tenant: str = "") -> tuple[int, ...]:
    return blocks_of(PromptRequest(prompt=prompt), tenant)


def test_a_block_counts_with_all_that_is_before_it() -> None:
    assert of("a" * 255) == ()
    assert of("a" * 512) == of("a" * 513)
    assert of("a" * 512)[0] != of("a" * 512)[1]
    assert of("b" + "a" * 511)[1] != of("a" * 512)[1]


def test_tokens_have_blocks_too() -> None:
    assert len(of([7] * 130)) == 2
    assert common(of([7] * 130), of([7] * 64 + [8] * 64)) == 1


def test_two_tenants_have_nothing_in_common() -> None:
    assert common(of("a" * 600, "one"), of("a" * 600, "other")) == 0


def test_of_a_long_prompt_the_beginning_is_compared() -> None:
    assert len(of("a" * 1_000_000)) == 512
    assert len(blocks_of(PromptRequest(prompt="a" * 10_000), most=32)) == 32


def test_roles_messages_and_tools_make_a_difference() -> None:
    def chat(role: str, tools: bool = False) -> tuple[int, ...]:
        more = {}
        if tools:
            more["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        message = ChatMessage(role=role, content="a" * 600)
        return blocks_of(ChatRequest(messages=[message], **more))

    assert len(chat("user")) == 2
    assert not common(chat("user"), chat("system"))
    assert not common(chat("user"), chat("user", tools=True))


@given(st.lists(st.booleans()), st.lists(st.booleans()))
def test_what_is_common_is_found_by_bisection(one: list[bool], other: list[bool]) -> None:
    def chained(path: list[bool]) -> tuple[int, ...]:
        return tuple(hash(tuple(path[: n + 1])) for n in range(len(path)))

    alike = 0
    while alike < min(len(one), len(other)) and one[alike] == other[alike]:
        alike += 1
    assert common(chained(one), chained(other)) == alike
    assert leading(chained(one), set(chained(other))) == alike
