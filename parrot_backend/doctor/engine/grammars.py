"""Whether answers match the grammars that they must, which nothing in their prompts says."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from parrot_backend.doctor.engine.patient import Patient, RefusedError
from parrot_backend.doctor.findings import Finding
from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.endpoints.upstream.requests import body_of
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.protocol import ChatRequest

_NO_GRAMMAR = (
    "answers of that form are asked for in words and checked when they have come: a small model often "
    "misses it"
)
_FORMS = ("response_format", "structured_outputs", "regex", "grammar")


def _schema(number: int) -> dict[str, Any]:
    """An object that no model would write by itself."""
    choices = {"enum": [f"violet-{number}", f"amber-{number + 1}"]}
    return {
        "type": "object",
        "properties": {"hue": choices, "level": {"type": "integer"}},
        "required": ["hue", "level"],
        "additionalProperties": False,
    }


def _is_of_schema(text: str, number: int) -> bool:
    try:
        told = json.loads(text)
    except ValueError:
        return False
    hues = _schema(number)["properties"]["hue"]["enum"]
    return isinstance(told, dict) and set(told) == {"hue", "level"} and told["hue"] in hues


def _outputs(kind: str, number: int) -> dict[str, Any]:
    """What an answer has to be, as our own requests say it."""
    if kind == "json_schema":
        schema = {"name": "colour", "schema": _schema(number), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if kind == "regex":
        return {"structured_outputs": {"regex": rf"[xyz]{{4}}-{number}-[0-9]{{3}}"}}
    return {"structured_outputs": {"grammar": f'start: "<{number}|" WORD ">"\nWORD: /[qwz]{{5}}/'}}


def _asked(kind: str, number: int, dialect: Dialect) -> dict[str, Any]:
    """The same as Parrot says it to this kind; as vLLM has it, where the kind is said to have none.

    A schema goes over as the `response_format` that all have: how its JSON is styled is not asked.
    """
    outputs = _outputs(kind, number)
    chat = {"messages": [{"role": "user", "content": "-"}], **outputs}
    try:
        body = body_of(
            Job(ChatRequest.model_validate(chat)), "-", replace(dialect, styles=False), None
        )
    except InvalidRequestError:
        return outputs
    return {name: body[name] for name in _FORMS if name in body}


KINDS: Mapping[str, Callable[[str, int], bool]] = {
    "json_schema": _is_of_schema,
    "regex": lambda text, n: re.fullmatch(rf"[xyz]{{4}}-{n}-[0-9]{{3}}", text) is not None,
    "lark": lambda text, n: re.fullmatch(rf"<{n}\|[qwz]{{5}}>", text) is not None,
}


async def check(patient: Patient) -> Finding:
    """See the module."""
    told = {kind: await _obeys(patient, kind) for kind in KINDS}
    obeyed = frozenset(kind for kind, why in told.items() if not why)
    found = "; ".join(f"{kind} {why or 'obeyed'}" for kind, why in told.items())
    facts = {"obeys": obeyed}
    if len(obeyed) == len(told):
        return Finding("grammars", "ok", found, facts=facts)
    return Finding("grammars", "missing", found, _NO_GRAMMAR, facts)


async def _obeys(patient: Patient, kind: str) -> str:
    """Empty, or what happens instead."""
    for number in (3, 7):
        try:
            answer = await patient.chat(
                "What is the weather like?", 160, **_asked(kind, number, patient.dialect)
            )
        except RefusedError as refused:
            return f"refused ({refused})"
        if not KINDS[kind](answer.text.strip(), number):
            return "not finished" if answer.finish == "length" else "ignored"
    return ""
