"""What the README and the docs show is run."""

import gc
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Settings

from parrot_backend.cli import _parser
from parrot_backend.endpoints.spec_files import read_specs
from parrot_backend.endpoints.spec_names import named
from parrot_backend.endpoints.specs import EngineSpec, spec_of
from parrot_backend.endpoints.upstream.dialect import (
    GENERIC,
    LLAMA_CPP,
    LM_STUDIO,
    OLLAMA,
    SGLANG,
    VLLM,
)

ROOT = Path(__file__).parents[1]


def blocks(path: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


@pytest.mark.model
@pytest.mark.parametrize("number", range(len(blocks("README.md", "python"))))
def test_the_readme_s_examples_run(
    number: int, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    monkeypatch.setattr(Settings, "_llm", None)
    source = blocks("README.md", "python")[number].replace(
        "temperature=0", "temperature=0, max_tokens=16"
    )
    exec(compile(source, f"README.md, example {number + 1}", "exec"), {})


@pytest.mark.model
def test_the_langchain_page_runs(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its examples follow on one another."""
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    names: dict[str, Any] = {}
    for number, source in enumerate(blocks("docs/langchain.md", "python"), 1):
        exec(compile(source, f"docs/langchain.md, example {number}", "exec"), names)
    assert names["bird"].name
    assert names["with_tools"].invoke("What is 2 + 3?").tool_calls[0]["args"].keys() == {"a", "b"}


# LlamaIndex's workflows look at all attributes of an agent, also at those that pydantic retires.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.filterwarnings("ignore:is_running called from within a step")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.model
def test_the_llama_index_page_runs(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its examples follow on one another."""
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    monkeypatch.setattr(Settings, "_llm", None)
    names: dict[str, Any] = {}
    for number, source in enumerate(blocks("docs/llama_index.md", "python"), 1):
        exec(compile(source, f"docs/llama_index.md, example {number}", "exec"), names)
    assert names["bird"].name
    assert str(names["product"]) == "48"
    assert "400" in names["said"]
    gc.collect()  # LlamaIndex leaves event loops of its own open: found here, they are not told later


@pytest.mark.model
def test_the_http_example_runs(base_url: str) -> None:
    (shown,) = blocks("docs/http.md", "bash")
    body = json.loads(shown[shown.index("'{") + 1 : shown.index("}'") + 1])
    session = httpx.post(f"{base_url}/v1/sessions", json=body).json()["id"]
    path = f"{base_url}/v1/sessions/{session}/variables"
    food = httpx.get(f"{path}/food", params={"timeout": 60}, timeout=70).json()
    country = httpx.get(f"{path}/country").json()
    assert "Peru" in country["value"]
    assert food["value"]
    assert httpx.delete(f"{base_url}/v1/sessions/{session}").json()["done"] == 2


@pytest.mark.model
def test_the_engines_page_runs(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an engine that needs no other server."""
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    (source,) = blocks("docs/engines.md", "python")
    exec(compile(source, "docs/engines.md", "exec"), {})


@pytest.mark.parametrize("path", ["README.md", "docs/engines.md"])
def test_the_commands_that_are_shown_are_commands(path: str) -> None:
    """And the engines that they name are some."""
    shown = [
        shlex.split(line)
        for block in blocks(path, "bash")
        for line in block.splitlines()
        if line.startswith("parrot ")
    ]
    assert shown
    for _, *arguments in shown:
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        parsed = _parser().parse_args(own)
        for engine in getattr(parsed, "engine", None) or ():
            spec_of(engine)


def test_the_engines_file_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (shown,) = blocks("docs/engines.md", "yaml")
    file = tmp_path / "engines.yaml"
    file.write_text(shown)
    assert [spec.name for spec in named(read_specs(file))] == ["left", "right", "cloud", "here"]


def test_the_fields_of_an_engine_are_all_told() -> None:
    text = (ROOT / "docs/engines.md").read_text()
    told = re.findall(
        r"`(\w+)`", text[text.index("| field |") : text.index("Engines that serve one")]
    )
    assert EngineSpec.model_fields.keys() <= set(told)


def table(path: str, corner: str) -> dict[str, list[str]]:
    """The cells of each row by its head, of the table that begins with a row."""
    text = (ROOT / path).read_text()
    lines = text[text.index(corner) :].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {head: cells for head, *cells in rows}


def test_the_table_of_dialects_is_what_they_are() -> None:
    rows = table("docs/engines.md", "| | ours | vLLM |")
    dialects = [VLLM, SGLANG, LLAMA_CPP, OLLAMA, LM_STUDIO, GENERIC]
    assert rows[""][1:-1] == [dialect.name for dialect in dialects[:-1]]

    def told(head: str) -> list[str]:
        return rows[head][1:]

    def yes(values: Iterable[bool]) -> list[str]:
        return ["yes" if value else "no" for value in values]

    assert told("priorities are told to it") == yes(d.priority != "none" for d in dialects)
    assert told("cached tokens are told") == yes(d.tells_cached for d in dialects)
    assert told("siblings share") == [d.sharing for d in dialects]
    assert told("prefill ahead") == yes(d.pins for d in dialects)
    assert told("logprobs") == yes(d.logprobs for d in dialects)
    assert told("sampled answers go on where they stood") == yes(d.repeatable for d in dialects)
    assert told("calls at once where it doesn't tell") == [str(d.slots) for d in dialects]


def test_the_readme_s_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\]\(([^):]+)\)", text) + re.findall(r"`((?:cookbooks|docs)/[^`]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
