"""Defaults for sampling: a model's generation_config.json, another folder's, and what overrides."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.engines.store.generation_config import (
    FILE,
    check_override,
    generation_config,
    store_generation_config,
)
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationConfig
from tests.engines.store.tiny_gguf import write_gguf

QWEN = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "transformers_version": "4.37.0",
}


def folder(path: Path, content: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_model_s_own_file_is_read(tmp_path: Path) -> None:
    assert generation_config(folder(tmp_path, QWEN)) == GenerationConfig(
        temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05
    )
    capped = folder(tmp_path, {**QWEN, "min_p": 0.1, "max_new_tokens": 2048, "top_k": None})
    assert generation_config(capped) == GenerationConfig(
        temperature=0.7, top_p=0.8, min_p=0.1, repetition_penalty=1.05, max_tokens=2048
    )


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from parrot_backend.engines.store.generation_config import generation_config; "
        f"print(generation_config({folder(tmp_path, QWEN)!r}).temperature, "
        "[m for m in ('torch', 'transformers', 'tokenizers', 'gguf') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "0.7 []"


def test_a_model_without_a_file_is_asked_as_openai_s(tmp_path: Path) -> None:
    assert generation_config(str(tmp_path)) == GenerationConfig()


def test_do_sample_does_not_count(tmp_path: Path) -> None:
    """As in vLLM."""
    assert generation_config(folder(tmp_path, {"do_sample": False})).temperature == 1


def test_the_file_of_a_converted_gguf_file_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf")
    assert generation_config(str(tmp_path / "tiny.gguf")) == GenerationConfig()


def test_another_folder_or_none_can_be_named(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", QWEN)
    other = folder(tmp_path / "other", {"temperature": 0.1})
    assert generation_config(model, other) == GenerationConfig(temperature=0.1)
    assert generation_config(model, "vllm") == GenerationConfig()


def test_overrides_win_field_by_field_and_null_takes_a_value_off(tmp_path: Path) -> None:
    override = {"temperature": 0, "top_k": None, "max_new_tokens": 64}
    assert generation_config(folder(tmp_path, QWEN), "auto", override) == GenerationConfig(
        temperature=0, top_p=0.8, repetition_penalty=1.05, max_tokens=64
    )


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"temperature": 3}, "temperature is 3: Input should be less than or equal to 2"),
        ({"top_p": "high"}, "top_p is 'high': Input should be a valid number"),
        ({"top_k": 1.5}, "top_k is 1.5: Input should be a valid integer"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: Input should be greater"),
        (
            {"repetition_penalty": True},
            "repetition_penalty is True: Input should be a valid number",
        ),
    ],
)
def test_a_value_that_can_not_be_is_told_with_file_and_field(
    tmp_path: Path, told: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert generation_config(folder(tmp_path, told)) == OPENAI_DEFAULTS, "the model's own"
    assert f"{tmp_path / FILE}: {reason}" in caplog.text
    with pytest.raises(InvalidRequestError) as refused:
        generation_config("another", str(tmp_path))
    assert refused.value.message.startswith(f"{tmp_path / FILE}: {reason}")
    assert refused.value.param == next(iter(told))
    with pytest.raises(InvalidRequestError) as refused:
        check_override(told)
    assert refused.value.message.startswith(f"override_generation_config: {reason}")
    generation_config(
        str(tmp_path), "auto", dict.fromkeys(told)
    )  # what is taken off is not looked at


@pytest.mark.parametrize("name", ["max_tokens", "presence_penalty", "do_sample"])
def test_an_override_that_does_not_count_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} does not count; .*max_new_tokens"):
        check_override({name: 1})


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_file_that_is_no_json_object_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidRequestError, match=FILE):
        generation_config(folder(tmp_path, content))


def test_what_is_stored_is_read_and_the_rest_stays(tmp_path: Path) -> None:
    model = folder(tmp_path, {"eos_token_id": 2, "top_k": 7})
    config = GenerationConfig(temperature=0.2, repetition_penalty=1.1, max_tokens=512)
    store_generation_config(config, tmp_path)
    assert generation_config(model) == config
    assert json.loads((tmp_path / FILE).read_text()) == {
        "eos_token_id": 2,
        "do_sample": True,
        "temperature": 0.2,
        "repetition_penalty": 1.1,
        "max_new_tokens": 512,
    }
    before = (tmp_path / FILE).stat()
    store_generation_config(config, tmp_path)
    assert (tmp_path / FILE).stat() == before
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_transformers_reads_what_is_stored(tmp_path: Path) -> None:
    from transformers import GenerationConfig as Theirs

    store_generation_config(GenerationConfig(temperature=0.2, max_tokens=9), tmp_path)
    theirs = Theirs.from_pretrained(tmp_path)
    assert (theirs.do_sample, theirs.temperature, theirs.max_new_tokens) == (True, 0.2, 9)
    theirs.validate(strict=True)
