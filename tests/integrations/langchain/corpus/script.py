"""The model of the corpus: what a prompt says decides the answer, and equal prompts have equal ones."""

import json
from zlib import crc32

from tests.tools import written


def script(prompt: str) -> str:
    """The answer that the first phrase found asks for; else one of its own for every prompt.

    Short, for of a streamed answer each character is a token, and each token an event.
    """
    number = crc32(prompt.encode())
    for phrase, answer in _ANSWERS.items():
        if phrase in prompt:
            return answer.replace("NUMBER", str(number % 9 + 1)).replace("WHICH", str(number % 97))
    return f"Say {number % 10_000}."


_LINES = "1. How long does it take? (WHICH)\n2. What does it cost?\n3. Who decides?"
_ANSWERS = {
    # What the run has come to goes before what it was asked at first.
    "It is sunny in": "It is warm in Oslo today.",
    "Tool gave:": "It comes to 391.",
    "Completed: research, write": json.dumps({"next": "FINISH"}),
    "Completed: research": json.dumps({"next": "write"}),
    "Completed: nothing": json.dumps({"next": "research"}),
    "homework": "no",
    "weather in Oslo": written("get_weather", city="Oslo"),
    "17 times 23": written("multiply", a=17, b=23),
    "one per line": _LINES,
    "separated by commas": "kettles, teapots, cups",
    "only with yes or no": "yes",
    "only with A or B": "A",
    "category alone": "billing",
    "SQLite query": "SELECT customer, SUM(total) FROM orders GROUP BY customer",
    "from 1 to 10": "NUMBER",
    "[score between 0 and 100]": "It is in the text.\nScore: WHICH",
    "Route the question": json.dumps({"source": "notes"}),
    "Judge the answer": json.dumps({"score": 4, "reason": "It names the source."}),
    "Grade the document": json.dumps({"relevant": True}),
    "Write a search": json.dumps({"query": "kettle warranty", "newest": 5}),
    "Extract the facts": json.dumps({"product": "kettle WHICH", "complaint": True}),
    "Tag the review": json.dumps({"sentiment": "negative", "urgency": 3}),
    "Make a plan": json.dumps({"steps": ["look it up", "compare", "decide"]}),
    "Revise the plan": json.dumps({"answer": "Take the train."}),
    "Name the sections": json.dumps({"sections": ["Past", "Present", "Future"]}),
    "as JSON": json.dumps({"name": "Ada", "order": 3}),
    "without its closing brace": '{"name": "Ada", "order": 3',
    "boxed": "Step by step, it is \\boxed{NUMBER}",
}
