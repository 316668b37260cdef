"""A model whose answer is a function of the prompt: any length, and in the form that is asked for."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from random import Random
from typing import Any
from zlib import crc32

from parrot_backend.engines.base import Delta, GenerationRequest, ModelCard
from parrot_backend.wire.errors import ContextLengthError, InvalidRequestError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.tools import Tool
from tests.doubles import ScriptedEngine
from tests.tools import written

WORDS = """
kettle rocks water river stone bridge cold bright seven letter morning ship lamp garden
paper winter engine copper salt road window north green iron glass field harbour rain clock
market silver thread forest tower bread candle valley orange mirror cloud
""".split()  # noqa: SIM905 - easier to read
_TOOLS = "\x1dtools "
_PIECE = 12


class Answers:
    """Answers of up to `longest` words; some are empty, and some begin or end with white space."""

    def __init__(self, seed: int = 0, longest: int = 12, odd: bool = True) -> None:
        self.seed = seed
        self.longest = longest
        self.odd = odd

    def __call__(self, prompt: str, schema: dict[str, Any] | None = None) -> str:
        rng = Random(crc32(f"{self.seed} {prompt}".encode()))
        if schema is not None:
            return json.dumps(instance(schema, rng))
        if _TOOLS in prompt:
            tool = json.loads(prompt.rpartition(_TOOLS)[2])[0]["function"]
            return written(tool["name"], **instance(tool["parameters"], rng))
        for phrase, form in _FORMS.items():
            if phrase in prompt:
                return form(self, prompt, rng)
        return self.text(rng)

    def text(self, rng: Random) -> str:
        if self.odd and rng.random() < 0.06:
            return rng.choice(["", "", " ", "\n"])
        words = " ".join(rng.choices(WORDS, k=rng.randint(1, self.longest)))
        before, after = (rng.choice(["", "", "", " ", "\n"]) if self.odd else "" for _ in range(2))
        return f"{before}{words.capitalize()}.{after}"

    def selection(self, prompt: str, rng: Random) -> str:
        count = int(re.search(r"\(1 to (\d+)\)", prompt)[1])
        several = rng.sample(range(1, count + 1), rng.randint(1, count))
        chosen = several if "no more than" in prompt else several[:1]
        return json.dumps([{"choice": n, "reason": self.text(rng)} for n in sorted(chosen)])

    def sub_questions(self, prompt: str, rng: Random) -> str:
        tools = json.loads(prompt.split("# Example 2")[1].split("```json")[1].split("```")[0])
        questions = [
            {"sub_question": f"What of the {rng.choice(WORDS)}?", "tool_name": name}
            for name in rng.choices([*tools], k=rng.randint(1, 3))
        ]
        return f"```json\n{json.dumps({'items': questions}, indent=4)}\n```"

    def step(self, prompt: str, rng: Random) -> str:
        return "None" if rng.random() < 0.2 else f"Where is the {rng.choice(WORDS)}?"

    def keywords(self, prompt: str, rng: Random) -> str:
        start = rng.choice(["KEYWORDS: ", "KEYWORDS:", ""])
        return start + ", ".join(rng.choices(WORDS, k=rng.randint(1, 4)))

    def relevance(self, prompt: str, rng: Random) -> str:
        documents = sorted(set(map(int, re.findall(r"Document (\d+):\n(?!<)", prompt))))
        lines = [f"Doc: {n}, Relevance: {rng.randint(1, 10)}" for n in documents]
        return "\n".join(lines[: rng.randint(1, max(1, len(lines)))])

    def json_object(self, prompt: str, rng: Random) -> str:
        found = prompt[prompt.index(_SCHEMA) + len(_SCHEMA) :]
        schema, _ = json.JSONDecoder().raw_decode(found.lstrip())
        return rng.choice(["", "Here:\n"]) + json.dumps(instance(schema, rng))


_SCHEMA = "Here's a JSON schema to follow:"
_FORMS = {
    _SCHEMA: Answers.json_object,
    "Using only the choices above": Answers.selection,
    "output a list of relevant sub-questions": Answers.sub_questions,
    "If we cannot extract more information from the context": Answers.step,
    "'KEYWORDS: <keywords>'": Answers.keywords,
    "Relevance: ": Answers.relevance,
}


def instance(schema: dict[str, Any], rng: Random, defs: dict[str, Any] | None = None) -> Any:
    """Some value that the JSON schema allows."""
    defs = schema.get("$defs", defs or {})
    if "$ref" in schema:
        return instance(defs[schema["$ref"].rpartition("/")[2]], rng, defs)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return instance(schema["anyOf"][0], rng, defs)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {
                # A selector's, of at least two.
                name: rng.randint(1, 2) if name == "index" else instance(part, rng, defs)
                for name, part in properties.items()
            }
        case "array":
            return [instance(schema["items"], rng, defs) for _ in range(rng.randint(1, 3))]
        case "integer" | "number":
            return rng.randint(1, 9)
        case "boolean":
            return rng.random() < 0.7
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))


class AnsweringEngine(ScriptedEngine):
    """Gives what `answers` says in pieces of some characters, each answer after `delay` seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.model = ModelCard("scripted", 1_000_000)
        self.answers = Answers()
        self.delay = delay

    def encode(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), *, fitting: bool = False
    ) -> list[int]:
        prompt = "".join(message.content for message in messages)
        if tools:
            prompt += _TOOLS + json.dumps([tool.model_dump(mode="json") for tool in tools])
        return [*map(ord, prompt)]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        if not all(0 <= token <= sys.maxunicode for token in request.prompt):
            raise InvalidRequestError(f"token ids must be from 0 to {sys.maxunicode}")
        prompt = "".join(map(chr, request.prompt))
        self.started.append(prompt)
        await asyncio.sleep(self.delay)
        if "FAIL" in prompt:
            raise ContextLengthError(f"{len(prompt)} tokens do not fit")
        grammar = request.sampling.grammar
        is_schema = grammar is not None and grammar.kind == "json_schema"
        answer = self.answers(prompt, json.loads(grammar.source) if is_schema else None)
        for start in range(0, max(1, len(answer)), _PIECE):
            piece = answer[start : start + _PIECE]
            reason = "stop" if start + _PIECE >= len(answer) else None
            yield Delta(piece, tuple(map(ord, piece)), 0, reason)
            await asyncio.sleep(0)
