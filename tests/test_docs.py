"""What the README and the docs show is run."""

import gc
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Settings

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


def test_the_readme_s_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\]\(([^):]+)\)", text) + re.findall(r"`((?:cookbooks|docs)/[^`]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
