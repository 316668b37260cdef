"""A start out of the store: the same bits as through transformers, without it, and nothing touched."""

import asyncio
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from parrot_backend.engines.base import GenerationRequest, Sampling
from parrot_backend.engines.store import folders
from parrot_backend.engines.store.kept import kept, made_of
from parrot_backend.engines.store.removing import remove_model
from parrot_backend.engines.torch_engine import TorchEngine, worker
from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama
from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, ForwardPass, StepModel
from parrot_backend.engines.torch_engine.load import loader
from parrot_backend.engines.torch_engine.load.examined import examine
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.load.quality import Quantization
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run
from tests.engines.torch_engine.conftest import save_tiny
from tests.servers import eventually

TEXT = [(7 * i * i + 3 * i) % 250 for i in range(160)]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "untied": lambda shape: LlamaConfig(**shape),
    "tied": lambda shape: LlamaConfig(**shape, tie_word_embeddings=True),
    "qwen2": lambda shape: Qwen2Config(**shape),
    "qwen3": lambda shape: Qwen3Config(**shape, head_dim=32),
    "llama3 rope": lambda shape: LlamaConfig(**shape, rope_parameters=LLAMA3),
    "yarn": lambda shape: LlamaConfig(**shape, rope_parameters=YARN),
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def logits(forward: ForwardPass, loaded: LoadedModel) -> torch.Tensor:
    cache = KVCache(loaded.shapes, len(TEXT), forward.kv_dtype, torch.device("cpu"))
    chunk = Chunk(TEXT, 0, [Run(0, len(TEXT))], len(TEXT))
    return StepModel(forward, cache).forward([chunk])


def again(
    path: str, monkeypatch: pytest.MonkeyPatch, quantization: Quantization | None = None
) -> LoadedModel:
    """Loaded, where transformers is not to be asked."""

    def never(*_: Any) -> Any:
        raise AssertionError("it was examined again")

    with monkeypatch.context() as patch:
        patch.setattr(loader, "_examined", never)
        return load_model(path, quantization)


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_those_of_transformers_weights_bit_by_bit(
    kind: str, tiny_shape: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_tiny(CONFIGS[kind](tiny_shape | {"num_key_value_heads": 2}), tmp_path / "model")
    first, second = load_model(path), again(path, monkeypatch)
    expected = logits(CpuLlama.of(examine(path).model), first)
    for loaded in (first, second):
        assert torch.equal(logits(loaded.forward, loaded), expected)
    assert first.context_length == second.context_length == 512
    assert first.end_tokens == second.end_tokens == {0}
    assert first.shapes == second.shapes == examine(path).shapes


@pytest.mark.parametrize("kind", ["untied", "llama3 rope", "yarn"])
def test_rotations_are_those_of_transformers_bit_by_bit(
    kind: str, tiny_shape: dict[str, Any], tmp_path: Path
) -> None:
    path = save_tiny(CONFIGS[kind](tiny_shape), tmp_path / "model")
    model = examine(path).model
    for positions in ([0], [5, 511, 3], list(range(512)), list(range(100_000, 100_033))):
        cos, sin = model.model.rotary_emb(torch.empty(0), torch.tensor([positions]))
        half = cos.shape[-1] // 2
        ours = CpuLlama.of(model)._turns(positions)
        for mine, theirs in zip(ours, (cos, sin), strict=True):
            assert torch.equal(torch.from_numpy(mine), theirs[0, :, :half])


def test_int8_is_kept_as_well(
    tiny_path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "parrot_backend"):
        first = load_model(tiny_path, "int8")
        second = again(tiny_path, monkeypatch, "int8")
    assert first.quantization == second.quantization == "int8"
    assert torch.equal(logits(first.forward, first), logits(second.forward, second))
    assert caplog.text.count("perplexity") == 2


def test_the_store_finds_what_was_made_of_a_model(tiny_path: str, store: Path) -> None:
    """As `parrot models` lists and removes it."""
    load_model(tiny_path)
    load_model(tiny_path, "int8")
    made = made_of(Path(tiny_path), kept())
    assert sorted(str(path.relative_to(store).parent) for path in made) == [
        "int8",
        "prepared",
        "prepared",
    ]
    remove_model(tiny_path)
    assert kept() == {}
    assert Path(tiny_path, "config.json").exists()


@pytest.mark.parametrize("name", ["norm.npy", "layers.down.panels.npy", "tokenizer.json"])
def test_what_is_damaged_is_made_again(
    name: str, tiny_path: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_model(tiny_path)
    (file,) = (store / "prepared").glob(f"*/{name}")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    loaded = load_model(tiny_path)
    assert file.read_bytes() == content
    assert "is damaged and made again" in caplog.text
    assert torch.equal(logits(loaded.forward, loaded), logits(expected.forward, expected))


def test_files_that_have_changed_are_prepared_anew(tiny_path: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_path, tmp_path / "model")
    assert load_model(str(folder)).end_tokens == {0}
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [0, 9]}))
    assert load_model(str(folder)).end_tokens == {0, 9}


def test_what_is_kept_of_a_model_that_is_gone_or_was_not_used_is_removed(
    tiny_path: str, tmp_path: Path, store: Path
) -> None:
    for name in ("gone", "old"):
        load_model(str(shutil.copytree(tiny_path, tmp_path / name)))
    shutil.rmtree(tmp_path / "gone")
    (old,) = (store / "prepared").glob("old-*")
    os.utime(old, (0, 0))
    load_model(tiny_path)
    names = [entry.name for entry in (store / "prepared").glob("[!.]*")]
    assert len(names) == 1
    assert names[0].startswith(Path(tiny_path).name)


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "can't be written to")]
)
def test_where_nothing_can_be_kept_it_runs_all_the_same(
    number: int,
    told: str,
    tiny_path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    store: Path,
) -> None:
    def fails(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    loaded = load_model(tiny_path)
    expected = logits(CpuLlama.of(examine(tiny_path).model), loaded)
    assert torch.equal(logits(loaded.forward, loaded), expected)
    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert told in warning
    assert "PARROT_CACHE_DIR" in warning
    assert not list((store / "prepared").glob("[!.]*"))


def test_who_comes_second_waits_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = tmp_path / "entry"
    monkeypatch.setattr(folders, "LOCK_SECONDS", 0.1)
    with (
        caplog.at_level("INFO", "parrot_backend"),
        folders.turn(entry, "baking"),
        pytest.raises(folders.StoreError, match="another process has been baking"),
        folders.turn(entry, "baking"),
    ):
        pass
    assert "another process is baking: waiting for it" in caplog.text


def resident(store: Path) -> int:
    """KiB of the store's files that this process has in memory."""
    mappings = Path("/proc/self/smaps").read_text().split("VmFlags")
    return sum(int(m.split("Rss:")[1].split()[0]) for m in mappings if str(store) in m)


async def test_an_idle_engine_gives_the_weights_pages_back(
    tiny_path: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.2)
    engine = TorchEngine.start(load_model(tiny_path), "tiny", kv_memory=2**20)
    request = GenerationRequest([5, 6, 7], Sampling(temperature=0, max_tokens=8))

    async def answer() -> list[int]:
        return [t async for delta in engine.generate(request) for t in delta.tokens]

    first = await answer()
    assert resident(store) > 0
    assert await asyncio.to_thread(eventually, lambda: resident(store) == 0)
    assert await answer() == first
    await engine.aclose()


STARTED = """
import json, sys
from parrot_backend.endpoints.process.factories import torch_engine
engine = torch_engine(sys.argv[1])
smaps = open("/proc/self/smaps").read().split(".npy")
mapped = [int(part.split("Rss:")[1].split()[0]) for part in smaps[1:]]
print(json.dumps([sorted(sys.modules), sum(mapped), len(mapped)]))
"""


@pytest.mark.model
def test_a_start_imports_no_transformers_and_touches_no_weights(
    model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARROT_CACHE_DIR")
    load_model(model_path)
    command = [sys.executable, "-c", STARTED, model_path]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    modules, touched, files = json.loads(told.stdout)
    assert "torch" in modules
    heavy = {
        "transformers",
        "huggingface_hub",
        "accelerate",
        "gguf",
        "safetensors",
        "torch._dynamo",
    }
    assert not heavy & set(modules)
    assert files > 10
    assert touched < 1024  # KiB, of half a million
