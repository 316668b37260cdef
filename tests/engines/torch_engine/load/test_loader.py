"""What can't be loaded is refused in one line that says what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BertConfig,
    BloomConfig,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    T5Config,
)

from parrot_backend.engines.store.generation_config import FILE, generation_config
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.memory.kv_cache import LayerShape
from tests.engines.store.places import in_hub_cache

Make = Callable[[Any], str]


@pytest.fixture
def folder(tiny_path: str, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to be damaged."""
    return Path(shutil.copytree(tiny_path, tmp_path / "model"))


def refusal(path: object) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(str(path))
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_folder_is_loaded(tiny_path: str) -> None:
    loaded = load_model(tiny_path)
    assert loaded.context_length == 512
    assert loaded.end_tokens == {0}
    assert loaded.forward.vocabulary == 258
    assert loaded.shapes == [LayerShape(2, 16, 16)] * 3


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "nothing")
    assert "there is no folder" in refusal("./nothing")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    assert "neither a folder nor a .gguf file" in refusal(tmp_path / "model.bin")


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    assert "no config.json" in refusal(tmp_path)


def test_a_model_in_the_hub_s_cache_is_loaded_without_the_hub(
    tiny_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = {file.name: file.read_bytes() for file in Path(tiny_path).iterdir()}
    in_hub_cache(tmp_path, "org/tiny", files | {FILE: b'{"top_k": 7, "eos_token_id": 0}'})
    assert load_model("org/tiny").forward.vocabulary == 258
    assert generation_config("org/tiny").top_k == 7


def test_an_unknown_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = refusal("nobody/nothing")
    assert told.startswith("'nobody/nothing' is not whole on this disk, and HF_HUB_OFFLINE")


def test_a_configuration_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "no model at" in refusal(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    assert "abacus" in refusal(folder)


def test_no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    assert "is not a whole model, it lacks tokenizer (tokenizer.json, " in refusal(folder)


def test_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in refusal(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "is not a whole model, it lacks weights (*.safetensors " in refusal(folder)


def test_weights_that_are_cut_off(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    told = f"model.safetensors has {len(weights) // 2:,} of {len(weights):,} bytes; fetch it again"
    assert told in refusal(folder)


def test_a_shard_that_is_missing(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "it lacks model-2.safetensors: copy or fetch" in refusal(folder)


def test_no_context_length(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = None
    (folder / "config.json").write_text(json.dumps(config))
    assert refusal(folder)


def test_an_encoder_decoder_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(T5Config().to_dict()))
    assert "encoder-decoder" in refusal(folder)


SMALL = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": None,
}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            lambda: MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=64),
            "sliding window",
        ),
        (lambda: Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=16), "soft-capped"),
        (
            lambda: GptOssConfig(**SMALL, num_key_value_heads=2, head_dim=16, num_local_experts=4),
            "attention sinks",
        ),
        (
            lambda: LlamaConfig(
                **SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
            ),
            "dynamic rotary embeddings",
        ),
        (
            lambda: BloomConfig(
                vocab_size=258, hidden_size=32, n_layer=2, n_head=2, eos_token_id=0, bos_token_id=0
            ),
            "nobody replace its attention",
        ),
        (lambda: MambaConfig(vocab_size=258, hidden_size=32, num_hidden_layers=2), "supported"),
        (lambda: BertConfig(**SMALL), "attention of its own kind"),
    ],
    ids=["sliding", "softcap", "sinks", "dynamic-rope", "alibi", "state-space", "bidirectional"],
)
def test_attention_that_is_not_plain_and_causal(
    make_tiny: Make, config: Callable[[], Any], reason: str
) -> None:
    assert reason in refusal(make_tiny(config()))
