"""How a model would run here: what is foreseen is what loading it comes to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.engines.store.outlook import outlook
from tests.engines.store.places import LLAMA, small_gguf


def folder(path: Path, config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "fast"),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 1024}, "fast"),
        ({"model_type": "mistral", "sliding_window": None}, "fast"),
        ({"model_type": "mistral", "sliding_window": 4096}, "fast"),
        ({"head_dim": 32, "hidden_size": 576, "num_attention_heads": 9}, "fast"),
        ({"layer_types": ["full_attention"]}, "fast"),
        ({"hidden_act": "gelu"}, "yes"),
        ({"hidden_size": 60}, "yes"),
        ({"head_dim": 20}, "yes"),
        ({"model_type": "qwen3_moe"}, "yes"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "yes"),
        ({"model_type": "mistral", "sliding_window": 1024}, "no"),
        ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, "no"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "no"),
        ({"layer_types": ["linear_attention"]}, "no"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "no"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "no"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "no"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "no"),
        ({"quantization_config": {"quant_method": "fp8"}}, "no"),
        ({"model_type": "abacus"}, "no"),
        ({"model_type": ["llama"]}, "no"),
        ({"model_type": "../models/llama"}, "no"),
    ],
)
def test_a_configuration_tells(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert outlook(folder(tmp_path / "model", {**LLAMA, **changes})) == expected


@pytest.mark.parametrize("config", ["", "{", "[]", "7", "[" * 200_000, '{"model_type": null}'])
def test_a_configuration_that_is_none_is_no_model(tmp_path: Path, config: str) -> None:
    assert outlook(folder(tmp_path / "model", config)) == "no"
    assert outlook(tmp_path / "nothing") == "no"


@pytest.mark.parametrize(
    ("architecture", "keys", "expected"),
    [
        ("llama", {}, "fast"),
        ("qwen3", {"attention__key_length": 32}, "fast"),
        ("llama", {"embedding_length": 40}, "yes"),
        ("phi3", {}, "yes"),
        ("qwen3moe", {"expert_count": 8}, "yes"),
        ("llama", {"expert_count": 8}, "no"),
        ("llama", {"attention__sliding_window": 512}, "no"),
        ("gemma3", {}, "no"),
        ("rwkv6", {}, "no"),
    ],
)
def test_the_head_of_a_gguf_file_tells(
    tmp_path: Path, architecture: str, keys: dict[str, int], expected: str
) -> None:
    assert outlook(small_gguf(tmp_path / "small.gguf", architecture, **keys)) == expected


def test_a_file_that_is_cut_off_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    assert outlook(tmp_path / "cut.gguf") == "no"


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "olmo2"])
def test_what_is_foreseen_is_what_loading_comes_to(kind: str, tmp_path: Path) -> None:
    from parrot_backend.engines.torch_engine.errors import ModelLoadError
    from parrot_backend.engines.torch_engine.forward.cpu.llama import fits_kernels, is_llama
    from parrot_backend.engines.torch_engine.load.probe import probe
    from tests.engines.store.tiny_gguf import tiny_model

    model = tiny_model(kind, head_dim=16, pad_token_id=None)
    model.config.save_pretrained(tmp_path)
    try:
        probe(model, 64)
        fast = is_llama(model.config) and fits_kernels(model.config)
        loaded = "fast" if fast else "yes"
    except ModelLoadError:
        loaded = "no"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"architectures": [type(model).__name__]})
    )
    assert outlook(tmp_path) == loaded


def test_foreseeing_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from parrot_backend.engines.store.outlook import outlook; "
        f"print(outlook(Path({str(folder(tmp_path, LLAMA))!r})), "
        "[m for m in ('torch', 'transformers', 'numpy', 'gguf') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "fast []"
