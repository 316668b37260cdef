"""What the texts of a program are made of, and whether that is more than can be served.

All of it is known before anything is rendered. Shared texts travel once, and are looked up where a
message or transform is rendered.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from parrot_backend.program.site import site_of
from parrot_backend.program.transforms import check_length
from parrot_backend.wire.errors import InvalidRequestError, PayloadTooLargeError
from parrot_backend.wire.messages import Text, TextSegment, VariableSegment
from parrot_backend.wire.protocol import Program, SemanticCall
from parrot_backend.wire.transforms import Transform

Node = SemanticCall | Transform

MOST_SEGMENTS = 400_000
"""Segments that the programs of one session have together, and so the edges of its graph at most."""
MOST_LITERALS = 2**26
"""Characters of literal text that the programs of one session have together."""
MOST_CHARACTERS = 2**28
"""What the shared texts of one program come to at most, counted wherever they are named."""


@dataclass(slots=True)
class Contents:
    """What programs are made of.

    `inputs` are the variables that a node reads, each once, in order of first use, and `characters`
    how many are known of its texts before it runs, both by the variable that it writes. `sites` are
    those of calls, by their ids.
    """

    inputs: dict[str, list[str]] = field(default_factory=dict)
    characters: dict[str, int] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    segments: int = 0
    literals: int = 0

    def update(self, other: "Contents") -> None:
        """Count another program's too."""
        self.inputs.update(other.inputs)
        self.characters.update(other.characters)
        self.sites.update(other.sites)
        self.segments += other.segments
        self.literals += other.literals


def texts_of(node: Node) -> Iterator[Text]:
    """The texts that a node is made of, in order."""
    if isinstance(node, Transform):
        yield from node.inputs
    else:
        yield from (message.content for message in node.messages)


def inputs_of(node: Node) -> list[str]:
    """The variables that a node reads, each once, in order of first use."""
    segments = (segment for text in texts_of(node) for segment in text)
    return list(dict.fromkeys(s.name for s in segments if isinstance(s, VariableSegment)))


def located(program: Program) -> Iterator[tuple[str, Node]]:
    """The nodes of a program, and where in it each is."""
    for index, transform in enumerate(program.transforms):
        yield f"transforms.{index}", transform
    for index, call in enumerate(program.calls):
        yield f"calls.{index}", call


def contents_of(program: Program, before: Contents | None = None) -> Contents:
    """What a program is made of.

    Args:
        program: it is looked at once, segment by segment.
        before: what the session's earlier programs are made of.

    Raises:
        InvalidRequestError: a segment names a shared text that is not there, or a message or input is
            too long whatever its variables will be.
        PayloadTooLargeError: there are too many segments, or the texts together are too long.
    """
    before = before or Contents()
    segments = _segments(program, MOST_SEGMENTS - before.segments)
    found = Contents(segments=segments, literals=sum(map(len, program.texts)))
    lengths = [len(text) for text in program.texts]
    given = {name: len(value) for name, value in program.variables.items() if value}
    shared = 0
    for where, node in located(program):
        inputs: dict[str, None] = {}
        known = 0
        for part, text in enumerate(texts_of(node)):
            fixed = 0
            for position, segment in enumerate(text):
                if isinstance(segment, TextSegment):
                    fixed += len(segment.text)
                    found.literals += len(segment.text)
                elif isinstance(segment, VariableSegment):
                    inputs[segment.name] = None
                    known += given.get(segment.name, 0)
                elif segment.index < len(lengths):
                    fixed += lengths[segment.index]
                    shared += lengths[segment.index]
                else:
                    param = f"{_place(where, node, part)}.{position}.index"
                    raise _missing(param, segment.index, len(lengths))
            known += fixed
            check_length(fixed, f"a text of {node.label}", _place(where, node, part))
        found.inputs[node.output] = list(inputs)
        found.characters[node.output] = known
        if isinstance(node, SemanticCall):
            found.sites[node.id] = site_of(node, program.texts)
    if before.literals + found.literals > MOST_LITERALS:
        raise _too_large("literal texts come to", MOST_LITERALS, "characters", "calls")
    if shared > MOST_CHARACTERS:
        raise PayloadTooLargeError(
            f"the shared texts come to {shared} characters where they are named, over the limit "
            f"of {MOST_CHARACTERS}: split the program over sessions",
            param="texts",
        )
    return found


def _segments(program: Program, room: int) -> int:
    """How many there are; they are counted before any is looked at."""
    count = 0
    for where, node in located(program):
        for part, text in enumerate(texts_of(node)):
            count += len(text)
            if count > room:
                raise _too_large("texts have", MOST_SEGMENTS, "segments", _place(where, node, part))
    return count


def _place(where: str, node: Node, part: int) -> str:
    inside = f"inputs.{part}" if isinstance(node, Transform) else f"messages.{part}.content"
    return f"{where}.{inside}"


def _missing(param: str, index: int, count: int) -> InvalidRequestError:
    message = f"there is no shared text {index}: 'texts' has {count}"
    return InvalidRequestError(message, param=param, code="text_missing")


def _too_large(what: str, most: int, unit: str, param: str) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"with this program the session's {what} more than {most} {unit}: split it over sessions",
        param=param,
        code="program_too_large",
    )
