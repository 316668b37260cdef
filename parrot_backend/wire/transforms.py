"""Wire type of transforms: pure steps from text to text that the backend runs itself."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from parrot_backend.wire.messages import Name, Text
from parrot_backend.wire.parameters import WireModel
from parrot_backend.wire.unicode import Unicode, checked_json

Op = Literal[
    "join",
    "strip",
    "lstrip",
    "rstrip",
    "lower",
    "upper",
    "removeprefix",
    "removesuffix",
    "replace",
    "split",
    "json_field",
]
Number = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]

# What each op takes, in the order in which Python's method of the same name takes it.
_ARGUMENTS: dict[Op, tuple[str, ...]] = {
    "join": ("separator",),
    "strip": ("characters",),
    "lstrip": ("characters",),
    "rstrip": ("characters",),
    "lower": (),
    "upper": (),
    "removeprefix": ("prefix",),
    "removesuffix": ("suffix",),
    "replace": ("old", "new", "count"),
    "split": ("separator", "maxsplit"),
    "json_field": (),
}
_BESIDES: dict[Op, tuple[str, ...]] = {"split": ("index",), "json_field": ("path",)}
_NEEDED = frozenset({"old", "new", "prefix", "suffix", "path"})
_NOT_GIVEN: dict[str, Any] = {
    **dict.fromkeys(("separator", "characters", "old", "new", "prefix", "suffix")),
    "count": -1,
    "maxsplit": -1,
    "index": 0,
    "path": [],
}


class Transform(WireModel):
    """A pure text step that the backend runs itself, from `inputs` into `output`.

    `join` puts `separator` between any number of inputs. The others have one. `json_field` reads it as
    JSON and gives the string at the end of `path`, keys and indices from the root on. The rest do what
    Python's methods of `str` do; of what `split` gives, the piece at `index` is taken.
    """

    op: Op = "join"
    inputs: list[Text] = Field(max_length=10_000)
    separator: Unicode | None = None
    characters: str | None = Field(default=None, max_length=256)
    old: Unicode | None = None
    new: Unicode | None = None
    count: Number = -1
    maxsplit: Number = -1
    index: Number = 0
    prefix: Unicode | None = None
    suffix: Unicode | None = None
    path: Annotated[list[str | int], AfterValidator(checked_json)] = Field(
        default_factory=list, max_length=64
    )
    output: Name

    @model_validator(mode="after")
    def _fits_its_op(self) -> Self:
        if self.op != "join" and len(self.inputs) != 1:
            raise ValueError(f"'{self.op}' has one input, not {len(self.inputs)}")
        takes = _ARGUMENTS[self.op] + _BESIDES.get(self.op, ())
        for name, default in _NOT_GIVEN.items():
            given = getattr(self, name) != default
            if given and name not in takes:
                raise ValueError(f"'{self.op}' takes no {name}")
            if not given and name in takes and name in _NEEDED:
                raise ValueError(f"'{self.op}' needs its {name}")
        if self.op == "split" and self.separator == "":
            raise ValueError(
                "'split' takes no empty separator; without one it splits at white space"
            )
        return self

    @property
    def arguments(self) -> list[Any]:
        """What Python's method of `str` is called with."""
        return [getattr(self, name) for name in _ARGUMENTS[self.op]]

    @property
    def description(self) -> str:
        """What it does, in words."""
        if self.op == "join":
            return f"join by {self.separator or ''!r}"
        if self.op == "json_field":
            return f"json field {'.'.join(map(str, self.path))}"
        given = self.arguments
        while given and given[-1] in (None, -1):
            given.pop()
        call = f"{self.op}({', '.join(map(repr, given))})" if given else self.op
        return f"{call}[{self.index}]" if self.op == "split" else call

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"transform '{self.output}'"
