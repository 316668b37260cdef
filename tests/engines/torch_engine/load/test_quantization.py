"""int8: weights rounded by what they compute of a text, kept in the store, their quality told."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama
from parrot_backend.engines.torch_engine.forward.transformers_forward import TransformersForward
from parrot_backend.engines.torch_engine.load import quality, quantization
from parrot_backend.engines.torch_engine.load.examined import Examined, examine
from parrot_backend.engines.torch_engine.load.gptq import _round_group, install, quantize
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.load.prepared import unprepared
from parrot_backend.engines.torch_engine.load.quantization import check_int8, perplexity, to_int8

TEXT = [(7 * i * i + 3 * i) % 250 for i in range(160)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(rows: int, depth: int) -> torch.Tensor:
    """Rows that fill a few directions, as activations do."""
    return random(rows, 12, seed=1) @ random(12, depth, seed=2) + 0.1 * random(rows, depth, seed=3)


def test_rounding_by_a_text_is_nearer_to_the_product_than_rounding_alone() -> None:
    weight, rows = random(48, 300), correlated(400, 300)
    whole, steps = _round_group([weight[:32], weight[32:]], rows)
    assert whole.abs().max() == 127
    assert torch.equal(whole, whole.round())
    nearest = (weight / steps[:, None]).round() * steps[:, None]
    unseen = random(200, 12, seed=5) @ random(12, 300, seed=2)
    for seen in (rows, unseen):
        error, alone = (
            (seen @ (rounded - weight).T).norm() for rounded in (whole * steps[:, None], nearest)
        )
        assert error < 0.5 * alone


def test_rows_that_say_nothing_leave_weights_where_they_are() -> None:
    weight = random(16, 40)
    whole, steps = _round_group([weight], torch.zeros(7, 40))
    assert ((whole * steps[:, None] - weight).abs() <= steps[:, None] / 2 + 1e-7).all()


def fresh(path: str) -> Examined:
    return examine(path)


def test_the_model_goes_on_with_rounded_weights(tiny_path: str) -> None:
    loaded = fresh(tiny_path)
    before = {name: m.weight for name, m in loaded.model.named_modules() if _is_product(m)}
    rounded = quantize(loaded.model, loaded.shapes, TEXT)
    assert set(rounded) == {f"{name}.{kind}" for name in before for kind in ("weight", "scales")}
    for name, weight in before.items():
        whole, steps = rounded[f"{name}.weight"], rounded[f"{name}.scales"]
        assert whole.dtype == torch.int8
        now = loaded.model.get_submodule(name).weight
        torch.testing.assert_close(now, whole * steps[:, None])
        assert (now - weight).norm() < 0.02 * weight.norm()


def _is_product(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear)


def test_perplexity_is_that_of_the_model(tiny_path: str) -> None:
    loaded = fresh(tiny_path)
    exact = perplexity(CpuLlama.of(loaded.model), loaded.shapes, TEXT)
    assert exact == pytest.approx(
        perplexity(TransformersForward(loaded.model), loaded.shapes, TEXT), rel=1e-4
    )
    loaded.model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([TEXT])).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(TEXT[1:])).exp()
    assert exact == pytest.approx(float(expected), rel=1e-3)


def test_generations_alone_batched_in_chunks_and_with_drafts_are_equal(
    tiny_path: str, make_stepper: Callable[..., Any]
) -> None:
    loaded = fresh(tiny_path)
    install(loaded.model, quantize(loaded.model, loaded.shapes, TEXT))
    prompts = [TEXT[9 * i : 14 * i + 5] for i in range(8)]
    greedy = Sampling(temperature=0, max_tokens=12)

    def generate(budget: int, *together: list[int], drafts: bool = False) -> list[list[int]]:
        stepper = make_stepper(loaded=unprepared(loaded), prefill_budget=budget)
        clients = [stepper.add(prompt, greedy, drafts=drafts) for prompt in together]
        stepper.run()
        return [client.tokens for client in clients]

    alone = [generate(512, prompt)[0] for prompt in prompts]
    assert generate(512, *prompts) == alone
    assert generate(7, *prompts) == alone
    assert generate(7, *prompts, drafts=True) == alone


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(quantization, "_text", lambda name: f"{name}: " + "one two three " * 30)
    return tmp_path / "int8"


def convert(path: str) -> dict[str, torch.Tensor]:
    loaded = fresh(path)
    to_int8(loaded.model, loaded.tokenizer, loaded.shapes).tell()
    return dict(loaded.model.state_dict())


def test_weights_are_rounded_once_and_their_quality_told(
    tiny_path: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "parrot_backend"):
        first = convert(tiny_path)
        (file,) = cache.glob("*.safetensors")
        again = convert(tiny_path)
    assert caplog.text.count("rounding the weights") == 1
    assert caplog.text.count("in int8") == 2
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)

    file.write_bytes(file.read_bytes()[:100])
    convert(tiny_path)
    assert file.stat().st_size > 100


def test_another_model_is_rounded_anew(tiny_path: str, cache: Path) -> None:
    loaded = load_model(tiny_path, "int8")
    loaded = fresh(tiny_path)
    loaded.model.model.layers[0].mlp.down_proj.weight.data *= 1.01
    to_int8(loaded.model, loaded.tokenizer, loaded.shapes)
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_a_loss_over_one_percent_is_a_warning(
    tiny_path: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(quality, "_TOLERANCE", -1.0)
    convert(tiny_path)
    assert [r.levelname for r in caplog.records if "perplexity" in r.message] == ["WARNING"]


def test_what_there_is_no_int8_for(
    make_tiny: Callable[[Any], str], tiny_shape: dict[str, Any]
) -> None:
    with pytest.raises(
        ModelLoadError, match=r"architecture is 'gpt_neox'.*supported for llama, mistral"
    ):
        load_model(make_tiny(GPTNeoXConfig(**tiny_shape)), "int8")
    with pytest.raises(ModelLoadError, match=r"hidden size 72 or its heads"):
        check_int8(LlamaConfig(hidden_size=72, num_attention_heads=3))


@pytest.mark.model
def test_the_real_model_loses_little_and_answers_the_same_in_a_batch(
    model_path: str, make_stepper: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "parrot_backend"):
        loaded = load_model(model_path, "int8")
    (told,) = [r.args[0] for r in caplog.records if "perplexity" in r.message]
    assert told.tokens > 1000
    assert told.loss < 0.01

    questions = ["What is a parrot?", "List three colours.", "Why is the sky blue?", "Hi"] * 4
    prompts = [loaded.tokenizer.encode(f"{i}. {question}") for i, question in enumerate(questions)]
    greedy = Sampling(temperature=0, max_tokens=12)
    together, alone = make_stepper(loaded=loaded), make_stepper(loaded=loaded)
    clients = [together.add(prompt, greedy) for prompt in prompts]
    together.run()
    for client in clients[:4]:
        single = alone.add(client.prompt, greedy, tenant=str(client.prompt))
        alone.run()
        assert client.tokens == single.tokens
