"""A backend that answers some prompts with tool calls and objects, and others with their reverse."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from llama_index.core.tools import FunctionTool

from tests.doubles import ScriptedEngine
from tests.servers import serving
from tests.tools import written

LIMA = written("get_weather", city="Lima", unit="celsius")
ADA = {"full_name": "Ada", "age": 36}
TREES = {"trees": [{"name": "oak"}, {"name": "elm"}]}
ANSWERS = {
    "call": LIMA,
    "both": f"I look.\n{LIMA}\n{written('now')}",
    "two": f"{LIMA}\n{written('get_weather', city='Rome')}",
    "cut": LIMA[:-30],
    "person": json.dumps(ADA),
    "personcall": written("Person", **ADA),
    "trees": json.dumps(TREES),
    "wrong": '{"full_name": "Ada", "age": "old"}',
}


def weather_of(city: str, unit: str = "celsius") -> str:
    """The weather in a city."""
    return f"{city} is sunny"


def noon() -> str:
    """The time."""
    return "noon"


get_weather = FunctionTool.from_defaults(weather_of, name="get_weather")
now = FunctionTool.from_defaults(noon, name="now")


@contextmanager
def scripted(answers: dict[str, str] = ANSWERS) -> Iterator[tuple[str, ScriptedEngine]]:
    engine = ScriptedEngine(lambda prompt: answers.get(prompt, prompt[::-1]))
    with serving(engine) as url:
        yield url, engine
