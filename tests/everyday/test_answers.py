"""What the bundled model answers on an ordinary day, to `ChatParrot()` as the README writes it."""

import asyncio
import re
from collections import Counter

import pytest
from langchain_core.messages import AIMessage

from parrot_integrations.langchain import ChatParrot
from tests.everyday.prompts import PROMPTS

pytestmark = pytest.mark.model

APPLIED = {
    "temperature": 0.2,
    "top_p": 0.9,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.5,
    "max_tokens": 512,
}

_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+|\n+")


def most_repeated(text: str) -> tuple[str, int]:
    """The sentence, or line, that comes most often, and how often; of one or two words none is one."""
    sentences = (" ".join(part.lower().split()) for part in _SENTENCE_ENDS.split(text))
    counts = Counter(sentence for sentence in sentences if sentence.count(" ") >= 2)
    return counts.most_common(1)[0] if counts else ("", 0)


async def test_every_answer_ends_and_none_goes_round_in_circles(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is named but seeds, so that the answers are the same each time."""
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    llm = ChatParrot()
    asked = (llm.ainvoke(prompt, seed=number) for number, prompt in enumerate(PROMPTS))
    answers = dict(zip(PROMPTS, await asyncio.gather(*asked), strict=True))

    cut_short = [prompt for prompt, answer in answers.items() if not ended(answer)]
    assert len(cut_short) <= 5, cut_short
    for prompt, answer in answers.items():
        assert answer.content, prompt
        assert answer.response_metadata["generation_config"] == APPLIED
        sentence, times = most_repeated(answer.text)
        assert times <= 2, (prompt, sentence)


def ended(answer: AIMessage) -> bool:
    """Whether it came to its end by itself; what did not is as long as it may be."""
    if answer.response_metadata["finish_reason"] == "stop":
        return True
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == APPLIED["max_tokens"]
    return False


# A penalty on what stands in the prompt ends answers too, and has them say other numbers and names.
FACTS = [
    (
        "The order 48213 was sent by Nordwind. The total is 318.40 EUR.",
        "What is the order's number?",
        "48213",
    ),
    (
        "Our workshop is at 9 Mill Lane in Leeds.",
        "What is the address of the workshop?",
        "9 Mill Lane",
    ),
    ("The call with Dr. Haddad is on Monday at 14:15.", "At what time is the call?", "14:15"),
    ("The call with Dr. Haddad is on Monday at 14:15.", "Who is the call with?", "Haddad"),
    (
        "The train ICE 597 leaves from platform 12.",
        "From which platform does the train leave?",
        "12",
    ),
    ("The shop closes at 19:30 on Saturdays.", "When does the shop close on Saturdays?", "19:30"),
    ("Version 3.8.2 was released on 4 June 2021.", "Which version was released?", "3.8.2"),
    ("Maria's teacher is Tomas Novak.", "Who is Maria's teacher?", "Novak"),
]


async def test_what_the_prompt_says_can_be_repeated(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    llm = ChatParrot()
    prompts = [f"Context: {fact}\n\nQuestion: {question}\nAnswer:" for fact, question, _ in FACTS]
    answers = await asyncio.gather(*(llm.ainvoke(p, seed=n) for n, p in enumerate(prompts)))
    right = [told in answer.text for answer, (_, _, told) in zip(answers, FACTS, strict=True)]
    assert sum(right) >= 6, [answer.text for answer in answers]
