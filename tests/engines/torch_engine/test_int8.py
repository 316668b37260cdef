"""int8: the products, what they are folded with, and that no token depends on its neighbours."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig, Qwen2Config

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine import quantization
from parrot_backend.engines.torch_engine.calibration import _read, calibrate, perplexity
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.int8 import (
    Int8Linear,
    Int8Projections,
    activation_steps,
    normalized_rows,
    scaled_rows,
)
from parrot_backend.engines.torch_engine.layer_weights import LayerWeights, layer_weights
from parrot_backend.engines.torch_engine.llama import LlamaForward
from parrot_backend.engines.torch_engine.loader import LoadedModel, load_model
from parrot_backend.engines.torch_engine.projections import FloatProjections, normalized
from parrot_backend.engines.torch_engine.quantization import check_int8, int8_smoothing
from parrot_backend.engines.torch_engine.smoothing import LayerSmoothing, smoothed

TEXT = [(7 * i * i + 3 * i) % 250 for i in range(160)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [63, 127])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_what_the_whole_numbers_give(steps: int, biased: bool) -> None:
    weight, x, other = random(40, 24), random(5, 24, seed=1), random(5, 40, seed=2)
    bias = random(40, seed=3) if biased else None
    layer = Int8Linear(weight, bias, steps=steps)

    scale = weight.abs().amax(1, keepdim=True) / 127
    values, largest = scaled_rows(x)
    product = ((values * steps).round() / steps * largest) @ ((weight / scale).round() * scale).T
    expected = product if bias is None else product + bias
    torch.testing.assert_close(layer(scaled_rows(x)), expected)
    torch.testing.assert_close(layer.add(scaled_rows(x), other), expected + other)


def test_rows_of_norms_are_the_norm() -> None:
    hidden, weight = random(6, 32) * 20, random(32, seed=1)
    rows = normalized_rows(hidden, weight, 1e-5)
    assert (rows.values.abs().amax(-1) == 1).all()
    torch.testing.assert_close(rows.values * rows.scale, normalized(hidden, 1e-5) * weight)


def test_a_row_of_zeros_stays_one() -> None:
    layer = Int8Linear(random(8, 16))
    assert (layer(scaled_rows(torch.zeros(3, 16))) == 0).all()
    assert torch.isfinite(layer(normalized_rows(torch.zeros(3, 16), torch.ones(16), 1e-5))).all()


def test_not_a_number_is_not_hidden() -> None:
    x = random(3, 16)
    x[1, 4] = torch.nan
    result = Int8Linear(random(8, 16))(scaled_rows(x))
    assert result[1].isnan().all()
    assert result[[0, 2]].isfinite().all()


SHAPE: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": None,
}


def with_random_biases(model: Any) -> Any:
    for name, values in model.named_parameters():
        if name.endswith("bias"):
            values.data.normal_()
    return model


@pytest.fixture(
    scope="module",
    params=[
        LlamaConfig(**SHAPE),
        LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
        Qwen2Config(**SHAPE),
    ],
    ids=["llama", "llama-biases", "qwen2"],
)
def loaded(request: pytest.FixtureRequest, make_tiny: Callable[[Any], str]) -> LoadedModel:
    loaded = load_model(make_tiny(request.param), "cpu")
    with_random_biases(loaded.model)
    return replace(loaded, smoothing=calibrate(loaded.model, TEXT))


def projections_of(weights: LayerWeights) -> list[torch.Tensor]:
    """All that a layer's projections give, with values passed on as if each token saw itself."""
    layer, hidden = FloatProjections(weights, 1e-5), random(7, 64)
    return outputs(layer, hidden, weights)


def outputs(layer: Any, hidden: torch.Tensor, weights: LayerWeights) -> list[torch.Tensor]:
    queries, keys, values = weights.heads
    qkv = layer.qkv(hidden)
    seen = qkv.view(len(hidden), -1, weights.dim)[:, queries + keys :]
    attended = seen.repeat_interleave(queries // values, 1).reshape(len(hidden), -1)
    return [
        qkv[:, : (queries + keys) * weights.dim],
        layer.out(attended, hidden),
        layer.mlp(hidden),
    ]


def test_smoothing_changes_no_result(loaded: LoadedModel) -> None:
    weights = layer_weights(loaded.model.model.layers[1])
    strong = LayerSmoothing(
        *(random(n, seed=n).exp() for n in (64, weights.heads[2] * weights.dim, 64, 96))
    )
    for got, expected in zip(
        projections_of(smoothed(weights, strong)), projections_of(weights), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_in_int8_is_near_the_exact_one(loaded: LoadedModel) -> None:
    weights = layer_weights(loaded.model.model.layers[1])
    hidden = random(7, 64)
    int8 = Int8Projections(smoothed(weights, loaded.smoothing[1]), 1e-5)
    pairs = zip(outputs(int8, hidden, weights), projections_of(weights), strict=True)
    for got, expected in pairs:
        assert (got - expected).norm() < 0.03 * expected.norm()


def test_rows_do_not_depend_on_the_batch_bit_for_bit(loaded: LoadedModel) -> None:
    weights = layer_weights(loaded.model.model.layers[0])
    layer = Int8Projections(smoothed(weights, loaded.smoothing[0]), 1e-5)
    hidden, attended = random(70, 64), random(70, 64, seed=1)
    hidden[3] *= 1000
    together = [layer.qkv(hidden), layer.out(attended, hidden), layer.mlp(hidden)]
    for rows in (slice(0, 1), slice(5, 21), slice(20, 70)):
        some = [
            layer.qkv(hidden[rows]),
            layer.out(attended[rows], hidden[rows]),
            layer.mlp(hidden[rows]),
        ]
        for part, whole in zip(some, together, strict=True):
            assert torch.equal(part, whole[rows])


def test_perplexity_is_that_of_the_float_model(loaded: LoadedModel) -> None:
    exact = perplexity(LlamaForward(loaded.model), TEXT)
    int8 = perplexity(LlamaForward(loaded.model, loaded.smoothing), TEXT)
    loaded.model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([TEXT])).logits[0, :-1]
    loaded.model.set_attn_implementation("parrot")
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(TEXT[1:])).exp()
    assert exact == pytest.approx(float(expected), rel=1e-3)
    assert int8 == pytest.approx(exact, rel=0.05)


def same_or_tied(loaded: LoadedModel, prompt: list[int], got: list[int], alone: list[int]) -> bool:
    """Equal, or apart where two tokens were nearly tied.

    Attention in pieces differs in the last bits, and a bit can move a value by a whole step of int8.
    """
    if got == alone:
        return True
    same = next(i for i, (a, b) in enumerate(zip(got, alone, strict=True)) if a != b)
    forward = LlamaForward(loaded.model, loaded.smoothing)
    _, logits = next(_read(forward, prompt + alone[:same]))
    first, second = logits[-1].topk(2).values.tolist()
    print(f"token {same}: {got[same]} for {alone[same]}, top-2 margin {first - second:.2e}")
    return first - second < 0.05 * float(logits[-1].std())


@pytest.mark.parametrize("loaded", [LlamaConfig(**SHAPE)], indirect=True)
def test_generations_alone_batched_and_in_chunks_are_equal(
    loaded: LoadedModel, make_stepper: Callable[..., Any]
) -> None:
    prompts = [TEXT[9 * i : 14 * i + 5] for i in range(8)]
    greedy = Sampling(temperature=0, max_tokens=6)

    def generate(prefill_budget: int, *together: list[int]) -> list[list[int]]:
        stepper = make_stepper(loaded=loaded, prefill_budget=prefill_budget)
        clients = [stepper.add(prompt, greedy) for prompt in together]
        stepper.run()
        return [client.tokens for client in clients]

    alone = [generate(512, prompt)[0] for prompt in prompts]
    for together in (generate(512, *prompts), generate(7, *prompts)):
        for prompt, got, expected in zip(prompts, together, alone, strict=True):
            assert same_or_tied(loaded, prompt, got, expected)
        assert sum(map(list.__eq__, together, alone)) >= 6


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(quantization, "_text", lambda name: f"{name}: " + "one two three " * 30)
    return tmp_path / "int8"


def test_calibration_is_kept_and_told(
    tiny: LoadedModel, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "parrot_backend"):
        first = int8_smoothing(tiny.model, tiny.tokenizer)
        (file,) = cache.glob("*.safetensors")
        again = int8_smoothing(tiny.model, tiny.tokenizer)
    assert caplog.text.count("calibrating") == 1
    assert caplog.text.count("in int8") == 2
    for one, other in zip(first, again, strict=True):
        assert all(map(torch.equal, one, other))

    file.write_bytes(file.read_bytes()[:100])
    assert int8_smoothing(tiny.model, tiny.tokenizer)
    assert file.stat().st_size > 100


def test_another_model_is_calibrated_anew(tiny_path: str, cache: Path) -> None:
    loaded = load_model(tiny_path, "cpu", "int8")
    loaded.model.model.layers[0].mlp.down_proj.weight.data *= 1.01
    int8_smoothing(loaded.model, loaded.tokenizer)
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_a_loss_over_one_percent_is_a_warning(
    tiny: LoadedModel,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(quantization, "_TOLERANCE", -1.0)
    int8_smoothing(tiny.model, tiny.tokenizer)
    assert [r.levelname for r in caplog.records if "perplexity" in r.message] == ["WARNING"]


def test_what_there_is_no_int8_for(make_tiny: Callable[[Any], str]) -> None:
    other = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}
    with pytest.raises(ModelLoadError, match=r"architecture is 'gpt_neox'.*x86.*llama, mistral"):
        load_model(make_tiny(GPTNeoXConfig(**other)), "cpu", "int8")
    with pytest.raises(ModelLoadError, match=r"run on cuda.*supported on x86 CPUs"):
        check_int8(LlamaConfig(), torch.device("cuda"))


def test_a_torch_without_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "int8_available", lambda: False)
    with pytest.raises(ModelLoadError, match="no FBGEMM kernels"):
        check_int8(LlamaConfig(), torch.device("cpu"))


@pytest.mark.model
def test_the_real_model_loses_little_and_answers_the_same_in_a_batch(
    model_path: str, make_stepper: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "parrot_backend"):
        loaded = load_model(model_path, "cpu", "int8")
    (quality,) = [r.args[0] for r in caplog.records if "perplexity" in r.message]
    assert quality.tokens > 1000
    assert quality.loss < (0.01 if activation_steps() == 127 else 0.03)

    questions = ["What is a parrot?", "List three colours.", "Why is the sky blue?", "Hi"] * 4
    prompts = [loaded.tokenizer.encode(f"{i}. {question}") for i, question in enumerate(questions)]
    greedy = Sampling(temperature=0, max_tokens=12)
    together, alone = make_stepper(loaded=loaded), make_stepper(loaded=loaded)
    clients = [together.add(prompt, greedy) for prompt in prompts]
    together.run()
    for client in clients[:4]:
        single = alone.add(client.prompt, greedy, tenant=str(client.prompt))
        alone.run()
        assert same_or_tied(loaded, client.prompt, client.tokens, single.tokens)
