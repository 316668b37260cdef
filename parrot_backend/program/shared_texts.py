"""Shared texts: each travels once, and is looked up where a message or transform is rendered."""

from collections.abc import Iterator

from parrot_backend.wire.errors import InvalidRequestError, PayloadTooLargeError
from parrot_backend.wire.messages import SharedSegment, Text
from parrot_backend.wire.protocol import Program

MOST_CHARACTERS = 2**28
"""What the shared texts of one program come to at most, counted wherever they are named."""


def check_shared_texts(program: Program) -> None:
    """Refuse a program whose segments name what is not there, or too much.

    Raises:
        InvalidRequestError: a segment names a text that is not there.
        PayloadTooLargeError: together, the texts are over the limit.
    """
    lengths, characters = [len(text) for text in program.texts], 0
    for where, text in _texts(program):
        for position, segment in enumerate(text):
            if isinstance(segment, SharedSegment):
                if segment.index >= len(lengths):
                    raise _missing(f"{where}.{position}.index", segment.index, len(lengths))
                characters += lengths[segment.index]
    if characters > MOST_CHARACTERS:
        raise PayloadTooLargeError(
            f"the shared texts come to {characters} characters where they are named, over the limit "
            f"of {MOST_CHARACTERS}: split the program over sessions",
            param="texts",
        )


def _texts(program: Program) -> Iterator[tuple[str, Text]]:
    for index, call in enumerate(program.calls):
        for turn, message in enumerate(call.messages):
            yield f"calls.{index}.messages.{turn}.content", message.content
    for index, transform in enumerate(program.transforms):
        for position, text in enumerate(transform.inputs):
            yield f"transforms.{index}.inputs.{position}", text


def _missing(param: str, index: int, count: int) -> InvalidRequestError:
    message = f"there is no shared text {index}: 'texts' has {count}"
    return InvalidRequestError(message, param=param, code="text_missing")
