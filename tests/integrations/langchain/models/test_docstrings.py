"""The examples in the classes' docstrings, run in order on the real backend.

A block that is one literal shows what the block before it gives: same keys, same types.
"""

import ast
import inspect
import re
from typing import Any

import pytest

from parrot_integrations.langchain import ChatParrot, ParrotLLM

LANGCHAIN_HEADINGS = [
    "Setup:",
    "Key init args — completion params:",
    "Key init args — client params:",
    "Instantiate:",
    "Invoke:",
    "Stream:",
    "Async:",
    "Token usage:",
    "Logprobs:",
]


def blocks(documented: type) -> list[str]:
    return re.findall(r"```python\n(.*?)```", dedented(documented), re.DOTALL)


def dedented(documented: type) -> str:
    """Each example is indented by its section."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)


def is_literal(block: str) -> bool:
    try:
        ast.literal_eval(block.strip())
    except (ValueError, SyntaxError):
        return False
    return True


async def run(block: str, names: dict[str, Any]) -> Any:
    """Runs a block, and gives the value of its last expression."""
    *body, last = ast.parse(block).body
    value = last.value if isinstance(last, ast.Expr) else None
    for part, mode in ((body if value else [*body, last], "exec"), (value, "eval")):
        if not part:
            continue
        tree = ast.Expression(part) if mode == "eval" else ast.Module(part, [])
        code = compile(tree, "docstring", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if code.co_flags & inspect.CO_COROUTINE:
            result = await result
    return result if value else None


def shape(value: Any) -> Any:
    """Keys and types; of a list what its first item is."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shape(item) for item in value[:1]]
    return type(value)


@pytest.mark.model
@pytest.mark.parametrize(("documented", "wanted"), [(ChatParrot, 4), (ParrotLLM, 2)])
async def test_the_examples_run(
    documented: type, wanted: int, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    names: dict[str, Any] = {}
    given, shown = None, 0
    for block in blocks(documented):
        if is_literal(block):
            assert shape(ast.literal_eval(block.strip())) == shape(given)
            shown += 1
        else:
            given = await run(block, names)
    assert shown == wanted
    await names["llm"].client.aclose()


@pytest.mark.parametrize(
    ("documented", "headings"),
    [
        (ChatParrot, ["Tool calling:", "Structured output:", "JSON mode:", "Response metadata:"]),
        (ParrotLLM, ["Batch:"]),
    ],
)
def test_the_headings_are_langchain_s(documented: type, headings: list[str]) -> None:
    lines = (inspect.getdoc(documented) or "").splitlines()
    assert set(LANGCHAIN_HEADINGS + headings) <= set(lines)
