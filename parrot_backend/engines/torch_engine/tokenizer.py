"""A model's tokenizer and its chat template, without transformers.

What transformers makes of a model's files is taken once, as the `tokenizers` package has it. From then
on tokens and prompts are the same as transformers', and it need not be imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tokenizers
from jinja2 import Template

from parrot_backend.engines.torch_engine.templates import compiled_template


@dataclass(frozen=True)
class Tokenizer:
    """Callable from any thread.

    Args:
        backend: of the `tokenizers` package.
        chat_templates: Jinja sources by their names: `default`, and `tool_use` for chats with tools.
        special_tokens: what templates know as `bos_token` and the like.
    """

    backend: tokenizers.Tokenizer
    chat_templates: Mapping[str, str]
    special_tokens: Mapping[str, str]

    @classmethod
    def of(cls, made: Any) -> "Tokenizer":
        """The same as a fast tokenizer of transformers."""
        backend = tokenizers.Tokenizer.from_str(made.backend_tokenizer.to_str())
        # Files may ask for both, which transformers leaves to who tokenizes.
        backend.no_truncation()
        backend.no_padding()
        template = made.chat_template or {}
        templates = template if isinstance(template, dict) else {"default": template}
        return cls(backend, templates, made.special_tokens_map)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of `text`, with those that the model expects around a raw text or without."""
        tokens: list[int] = self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        return tokens

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of tokens."""
        text: str = self.backend.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> str:
        """A chat as the model expects it, generation prompt included.

        Raises:
            TemplateError: the template refuses the messages.
        """
        name = "tool_use" if tools is not None and "tool_use" in self._compiled else "default"
        return self._compiled[name].render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=True,
            **self.special_tokens,
        )

    @cached_property
    def _compiled(self) -> dict[str, Template]:
        return {name: compiled_template(text) for name, text in self.chat_templates.items()}
