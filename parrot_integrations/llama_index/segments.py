"""What a prompt was made of: the template's literal text, and the named values in it.

LlamaIndex gives an LLM finished text. The hooks by which a template becomes one (`LLM._get_prompt`,
`LLM._get_messages`) give it back with the template and the arguments beside it, which whoever asks for
the pieces fills once more. They are exact: joined they are the text, or the text is one piece.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    LangchainPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
    SelectorPromptTemplate,
)

from parrot_integrations.client.scope import wire_name

_VARIABLE = re.compile(r"\{([^{}]+)\}")  # as the framework's own formatter
_RICH_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_RICH_MESSAGE = re.compile(r"\{%-?\s*chat\b[^%]*%\}(.*?)\{%-?\s*endchat\s*-?%\}", re.DOTALL)
_RICH_LOGIC = re.compile(r"\{[{%#]")
_KNOWN = (
    PromptTemplate,
    ChatPromptTemplate,
    SelectorPromptTemplate,
    RichPromptTemplate,
    LangchainPromptTemplate,
)
# What is written the same however often it is asked; other objects' text is code of the application.
_PLAIN = (str, int, float, bool, list, tuple, dict, type(None))


class Value(NamedTuple):
    """A piece that stands where the template has a variable."""

    name: str
    text: str


Piece = str | Value


@dataclass(frozen=True, slots=True)
class Rendered:
    """The pieces of each message, or of a prompt as of the only one; and the template's `site`."""

    messages: tuple[tuple[Piece, ...], ...]
    site: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """What was rendered, and for whom."""

    prompt: BasePromptTemplate
    variables: Mapping[str, Any]
    llm: BaseLLM


class RenderedPrompt(str):
    """A prompt that knows its template. What copies or keeps it gets the text alone."""

    source: _Source

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


class RenderedMessages(list[ChatMessage]):
    """As `RenderedPrompt`, of a chat."""

    source: _Source

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def rendered_prompt(
    text: str, prompt: BasePromptTemplate, variables: Mapping[str, Any], llm: BaseLLM
) -> str:
    """The text that a template has become with these variables, which now knows it."""
    carrier = RenderedPrompt(text)
    carrier.source = _Source(prompt, variables, llm)
    return carrier


def rendered_messages(
    messages: Sequence[ChatMessage],
    prompt: BasePromptTemplate,
    variables: Mapping[str, Any],
    llm: BaseLLM,
) -> list[ChatMessage]:
    """As `rendered_prompt`, of a chat."""
    carrier = RenderedMessages(messages)
    carrier.source = _Source(prompt, variables, llm)
    return carrier


def carried(asked: object) -> Rendered | None:
    """The pieces of a prompt or of messages that an LLM is asked; None where no template is known."""
    if isinstance(asked, RenderedPrompt):
        texts: list[str | None] = [str(asked)]
    elif isinstance(asked, RenderedMessages):
        texts = [_text(message) for message in asked]
    else:
        return None
    prompt = _selected(asked.source)
    filled = _filled(prompt, asked.source.variables)
    # The LLM's own system prompt comes before the template's messages.
    ahead = len(texts) - len(filled)
    if ahead not in (0, 1) or (ahead == 1 and not getattr(asked.source.llm, "system_prompt", None)):
        filled, ahead = [], 0
    pieces = [None] * ahead + filled + [None] * (len(texts) - ahead - len(filled))
    return Rendered(
        tuple(_verified(p, t) for p, t in zip(pieces, texts, strict=True)), site_of(asked)
    )


def site_of(asked: object) -> str | None:
    """A short name for the template, the same for all that was made of it: a call site.

    None of one without variables, as the framework makes of finished messages: it is used once.
    """
    if not isinstance(asked, RenderedPrompt | RenderedMessages):
        return None
    prompt = asked.source.prompt
    if type(prompt) not in _KNOWN or not prompt.template_vars or _asks_code(prompt):
        return None
    template = prompt.get_template(llm=asked.source.llm)
    kind = prompt.metadata.get("prompt_type", "custom")
    digest = blake2b(template.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return wire_name(f"{getattr(kind, 'value', kind)}.{digest}")


def _asks_code(prompt: BasePromptTemplate) -> bool:
    """Whether code of the application's chooses the template: it is not asked once more."""
    if not isinstance(prompt, SelectorPromptTemplate):
        return False
    conditions = [condition for condition, _ in prompt.conditionals or ()]
    return not all(str(each.__module__).startswith("llama_index.core.") for each in conditions)


def _text(message: ChatMessage) -> str | None:
    """None where a message is more than text."""
    plain = all(block.block_type == "text" for block in message.blocks)
    return message.content or "" if plain else None


def _verified(pieces: list[Piece] | None, text: str | None) -> tuple[Piece, ...]:
    """Pieces that are the text when they are joined; the text alone where it has been rewritten.

    Where parsers and system prompts have put something around it, that is literal text.
    """
    if text is None:
        return ()
    if pieces is not None:
        joined = "".join(_written(piece) for piece in pieces)
        if joined and text.count(joined) == 1:
            before, _, after = text.partition(joined)
            return _merged([before, *pieces, after])
    return _merged([text])


def _written(piece: Piece) -> str:
    return piece.text if isinstance(piece, Value) else piece


def _merged(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Literal text that is not interrupted is one piece."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(last := merged[-1], str):
            merged[-1] = last + piece
        elif piece != "":
            merged.append(piece)
    return tuple(merged)


def _selected(source: _Source) -> BasePromptTemplate:
    prompt = source.prompt
    while type(prompt) is SelectorPromptTemplate:
        prompt = prompt.select(source.llm)
    return prompt


def _filled(prompt: BasePromptTemplate, variables: Mapping[str, Any]) -> list[list[Piece] | None]:
    """The pieces of each message of a template; none where filling it would run others' code again."""
    if prompt.function_mappings:
        return []
    values = prompt._map_template_vars({**prompt.kwargs, **variables})
    if type(prompt) is PromptTemplate:
        return [_pieces(prompt.template, _VARIABLE, values)]
    if type(prompt) is ChatPromptTemplate:
        templates = [_text(message) for message in prompt.message_templates]
        return [None if t is None else _pieces(t, _VARIABLE, values) for t in templates]
    if type(prompt) is RichPromptTemplate:
        bodies = _RICH_MESSAGE.findall(prompt.template_str) or [prompt.template_str]
        return [_rich_pieces(body, values) for body in bodies]
    return []


def _pieces(
    template: str, variable: re.Pattern[str], values: Mapping[str, Any]
) -> list[Piece] | None:
    """A template with its variables filled; None where a value is not plain."""
    pieces: list[Piece] = []
    done = 0
    for match in variable.finditer(template):
        name = match[1]
        if name not in values:
            continue
        if not isinstance(values[name], _PLAIN):
            return None
        pieces += [template[done : match.start()], Value(name, str(values[name]))]
        done = match.end()
    return [*pieces, template[done:]]


def _rich_pieces(body: str, values: Mapping[str, Any]) -> list[Piece] | None:
    """As `_pieces`, of a body in Jinja that has nothing but variables: None of any other."""
    if _RICH_LOGIC.search(_RICH_VARIABLE.sub("", body)):
        return None
    # Jinja takes whitespace away next to its tags; what it has left is around the pieces.
    return _pieces(body.strip(), _RICH_VARIABLE, values)
