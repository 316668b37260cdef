"""The examples in the class's docstring, run in order on the real backend."""

import inspect
import re
from typing import Any

import llama_index.core
import pytest
from llama_index.core import Settings

from parrot_integrations.llama_index import Parrot


@pytest.mark.model
def test_the_examples_run(
    base_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", base_url)
    monkeypatch.setattr(Settings, "_llm", None)
    monkeypatch.setattr(Settings, "_tokenizer", None)
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    text = re.sub(r"^ {4}", "", inspect.getdoc(Parrot) or "", flags=re.MULTILINE)
    names: dict[str, Any] = {}
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for example in examples:
        exec(example, names)
    assert len(examples) == 4
    assert "It is sunny in" in capsys.readouterr().out
    assert type(names["person"]) is names["Person"]
    assert Settings.tokenizer("Hello") == names["llm"].tokenizer("Hello")
