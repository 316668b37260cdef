"""JSON that a call will give: the texts in it can be planned with, everything else the run will tell.

A `JsonValue` is an `Unknown`, for what it is as a whole only the run knows: a step that needs more of
it than a text waits for it, as for any other unknown.
"""

from collections.abc import Callable, Mapping
from typing import Any

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import NotYetError, Text, Unknown

Key = str | int
Schema = Mapping[str, Any]


class JsonValue(Unknown):
    """The value at `path` in a text that is JSON.

    `schema` is the JSON schema that it follows, empty where none is known. `attributes` are there
    where the run makes an object of it: names and the keys that they come from. `origin` names the
    step that parses the text.
    """

    __slots__ = (
        "_field",
        "_follows",
        "_guessed",
        "_key",
        "_parts",
        "_whole",
        "attributes",
        "origin",
        "path",
        "schema",
        "text",
    )

    known_in_part = True

    def __init__(
        self,
        text: Text,
        schema: Schema,
        origin: str,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.text = text
        self.schema = schema
        self.origin = origin
        self.attributes = attributes
        self.path: tuple[Key, ...] = ()
        self._whole: JsonValue | None = None
        self._key: Key = ""
        self._parts: dict[Key, JsonValue] = {}
        self._guessed: list[JsonValue] = []
        self._field: Text | None = None
        self._follows = False

    @property
    def settled(self) -> bool:
        """Whether the run has told it."""
        self._take()
        return self._settled

    def item(self, key: Key) -> "JsonValue":
        """The value at a key or an index, as subscripting will give it.

        Raises:
            NotYetError: it is an object, which may have a way of its own.
        """
        if self.attributes is not None:
            raise NotYetError(self)
        return self._part(key, key)

    def attribute(self, name: str) -> "JsonValue":
        """The value of an attribute.

        Raises:
            NotYetError: it is no object, or not known to have it as it stands in the JSON.
        """
        if self.attributes is None or name not in self.attributes:
            raise NotYetError(self)
        return self._part(name, self.attributes[name])

    def keys(self) -> tuple[str, ...] | None:
        """All keys that it will have; None where that is left open."""
        names = tuple(self.schema.get("properties") or ())
        closed = self.schema.get("additionalProperties") is False and self.attributes is None
        return names if closed and set(names) == set(self.schema.get("required") or ()) else None

    @property
    def may_be_text(self) -> bool:
        """Whether it is a text by its schema; without one, whatever is taken from JSON may be."""
        return bool(self.path) and self.schema.get("type", "string") == "string"

    def as_text(self, plan: Plan) -> Text:
        """The text that it is; the backend reads it out of the JSON.

        Raises:
            NotYetError: its schema says that it is none.
        """
        if not self.may_be_text:
            raise NotYetError(self)
        if self._field is None:
            if not self.schema:
                self._guessed.append(self)
            self._field = plan.json_field(self.text, self.path)
        return self._field

    def misguessed(self) -> bool:
        """Whether something in it was taken for a text and is none, or is not there."""
        return any(not part.settled or type(part.value) is not str for part in self._guessed)

    def then(self, reader: Callable[[], None]) -> None:
        """See `Unknown.then`; a part is known when the whole is."""
        if self._whole is not None and not self._follows:
            self._follows = True
            self._whole.then(self._take)
        super().then(reader)

    def _part(self, key: Key, json_key: Key) -> "JsonValue":
        if key not in self._parts:
            part = type(self)(self.text, _schema_at(self.schema, json_key), self.origin)
            part.path, part._whole, part._key = (*self.path, json_key), self, key
            part._guessed = self._guessed
            self._parts[key] = part
        return self._parts[key]

    def _take(self) -> None:
        """What the whole has here; nothing, where the run will find it missing too."""
        if self._settled or self._whole is None or not self._whole.settled:
            return
        whole: Any = self._whole.value
        if self._whole.attributes is not None:
            whole = object.__getattribute__(whole, "__dict__")
        if type(whole) not in (dict, list):  # subscripting anything else may be code of the user's
            return
        try:
            self.settle(whole[self._key])
        except (LookupError, TypeError):
            return


def _schema_at(schema: Schema, key: Key) -> Schema:
    """The schema of an item; its type is None where the schema does not tell of one."""
    if not schema:
        return {}
    inside = schema.get("items") if type(key) is int else (schema.get("properties") or {}).get(key)
    return {"type": None, **(inside if isinstance(inside, Mapping) else {})}
