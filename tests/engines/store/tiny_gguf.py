"""Writes tiny random models as GGUF files, as llama.cpp's converter lays them out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_model(kind: str = "llama", hidden: int = 32, **options: Any) -> Any:
    """A random causal LM of transformers with one layer and a vocabulary of 260 tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        vocab_size=260,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        **options,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def write_gguf(path: Path, model: Any = None, *, quantized: str = "F32", **keys: Any) -> None:
    """Write `model` with a byte-level vocabulary; `keys` (dots as `__`) are added to the header.

    `quantized` names the type of the weight matrices in GGUF.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    model = model or tiny_model()
    config = model.config
    writer = GGUFWriter(path, keys.pop("architecture", config.model_type))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer)
    for key, value in keys.items():
        writer.add_uint16(key.replace("__", "."), value)
    kind = GGMLQuantizationType[quantized]
    for name, weight in _tensors(model).items():
        if weight.ndim == 2:
            writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any) -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), "ĠĠ"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def _tensors(model: Any) -> dict[str, np.ndarray]:
    tensors = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
    }
    for index, layer in enumerate(model.model.layers):
        for theirs, ours in NAMES.items():
            for part, values in layer.get_submodule(theirs).named_parameters():
                tensors[f"blk.{index}.{ours}.{part}"] = values
    if model.config.model_type == "llama":
        heads = model.config.num_attention_heads, model.config.num_key_value_heads
        for name, count in zip(("attn_q", "attn_k"), heads, strict=True):
            key = f"blk.0.{name}.weight"
            tensors[key] = _interleaved(tensors[key], count)
    return {name: values.detach().numpy() for name, values in tensors.items()}


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp rotates neighbours: the halves of each head's rows become pairs."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
