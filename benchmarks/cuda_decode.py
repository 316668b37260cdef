"""Decoding on CUDA over a long shared prefix, against what must move and against transformers.

    python benchmarks/cuda_decode.py [--sequences 32] [--prefix 4096] [--layers 32]
    python benchmarks/cuda_decode.py --tiny --device cpu     (only to see that it runs)

A model in the shape of an 8B Llama, with random weights, decodes greedily: 32 sequences of 64 tokens
of their own behind 4,096 shared ones. Measured are transformers' `generate`, our steps where every
sequence has a copy of the prefix ("sharing off"), and our steps where they share it ("sharing on").

Printed are the median milliseconds per step with the fastest and slowest, the bytes that must be read
(the weights once, each stored key and value once), and the time that these take at the bandwidth
measured by copying. The time of ours contains everything from a list of tokens to the next one. All
of it takes about 60 GB of the device's memory; fewer layers or sequences take less.
"""

import argparse
import gc
import itertools
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig

from parrot_backend.engines.torch_engine.engine import forward_pass
from parrot_backend.engines.torch_engine.kv_cache import KVCache, LayerShape, token_bytes
from parrot_backend.engines.torch_engine.model import Chunk, StepModel
from parrot_backend.engines.torch_engine.slots import Run, split_runs

SHAPE_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
SHAPE_TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
OWN = 64
PREFILL = 512
WARM_UP = 3

Times = list[float]


@dataclass(frozen=True)
class Settings:
    """What is measured: `sequences` that share `prefix` tokens decode `steps` more."""

    device: torch.device
    dtype: torch.dtype
    sequences: int
    prefix: int
    steps: int

    @property
    def room(self) -> int:
        """Slots that a sequence needs for itself."""
        return OWN + self.steps + 1


def build_model(shape: dict[str, Any], layers: int, settings: Settings) -> Any:
    """A causal language model with random weights."""
    length = settings.prefix + settings.room
    config = LlamaConfig(
        **shape, num_hidden_layers=layers, max_position_embeddings=length, eos_token_id=None
    )
    torch.manual_seed(0)
    with settings.device:
        return AutoModelForCausalLM.from_config(config, dtype=settings.dtype).eval()


def weight_bytes(model: Any) -> int:
    """Bytes of weights that a step reads: all but the embeddings, of which it reads a few rows."""
    everything = sum(p.numel() * p.element_size() for p in model.parameters())
    embeddings = model.get_input_embeddings().weight
    return int(everything - embeddings.numel() * embeddings.element_size())


def bandwidth(settings: Settings, size: int) -> float:
    """Bytes per second, read and written, of copies of `size` bytes."""
    source = torch.ones(size, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        start = now(settings)
        target.copy_(source)
        times.append(now(settings) - start)
    return 2 * size / statistics.median(times)


def now(settings: Settings) -> float:
    """Seconds, when the device has done what it was told."""
    if settings.device.type == "cuda":
        torch.cuda.synchronize(settings.device)
    return time.perf_counter()


def transformers_times(model: Any, prompts: list[list[int]], settings: Settings) -> Times:
    """Seconds of each step of `generate`, the prompt's left out."""
    stamps: list[float] = []

    def stamp(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        stamps.append(now(settings))
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    ids = torch.tensor(prompts, device=settings.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=settings.steps + 1,
        do_sample=False,
        pad_token_id=0,
        stopping_criteria=[stamp],
    )
    return [after - before for before, after in itertools.pairwise(stamps)]


class Ours:
    """Our model and a cache in which the prefix lies once, and once more for each sequence."""

    def __init__(self, model: Any, prompts: list[list[int]], settings: Settings) -> None:
        config = model.config
        dim = config.hidden_size // config.num_attention_heads
        self.shapes = [LayerShape(config.num_key_value_heads, dim, dim)] * config.num_hidden_layers
        self._settings, self._prompts = settings, prompts
        self._own = (settings.sequences + 1) * settings.prefix
        slots = self._own + settings.sequences * settings.room
        self._cache = KVCache(self.shapes, slots, settings.dtype, settings.device)
        self._step = StepModel(forward_pass(model), self._cache)

    def prepare(self) -> None:
        """Compute the prefix, and copy it."""
        prefix = self._settings.prefix
        tokens = self._prompts[0][:prefix]
        for start in range(0, prefix, PREFILL):
            stop = min(start + PREFILL, prefix)
            self._step.forward([Chunk(tokens[start:stop], start, [Run(0, stop)], 0)])
        for stored in (*self._cache.keys, *self._cache.values):
            copies = stored[:, prefix : self._own].unflatten(1, (-1, prefix))
            copies.copy_(stored[:, None, :prefix])

    def decode(self, *, sharing: bool) -> tuple[Times, list[list[int]]]:
        """Seconds of each step, and each step's tokens."""
        prefix, sequences = self._settings.prefix, range(self._settings.sequences)
        places = [
            [
                Run(0 if sharing else (i + 1) * prefix, prefix),
                Run(self._own + i * self._settings.room, self._settings.room),
            ]
            for i in sequences
        ]
        own = [prompt[prefix:] for prompt in self._prompts]
        tokens, start = [self._forward(own, prefix, places)], prefix + OWN
        times = []
        for position in range(start, start + self._settings.steps):
            before = now(self._settings)
            tokens.append(self._forward([[token] for token in tokens[-1]], position, places))
            times.append(now(self._settings) - before)
        return times, tokens

    def _forward(self, tokens: list[list[int]], start: int, places: list[list[Run]]) -> list[int]:
        chunks = [
            Chunk(some, start, split_runs(runs, start + len(some))[0], 1)
            for some, runs in zip(tokens, places, strict=True)
        ]
        best: list[int] = self._step.forward(chunks).argmax(-1).tolist()
        return best


def report(name: str, times: Times, moved: float, per_second: float) -> float:
    """Print a line of the table; returns the median milliseconds."""
    steps = [1000 * seconds for seconds in times[WARM_UP:]]
    median, limit = statistics.median(steps), 1000 * moved / per_second
    spread = f"{median:.2f} ({min(steps):.2f}-{max(steps):.2f})"
    print(f"{name:22}{spread:>28}{moved / 1e9:>10.3f}{limit:>10.2f}{limit / median:>8.0%}")
    return median


def measure(model: Any, settings: Settings, copied: int) -> None:
    """Measure everything and print the table."""
    generator = torch.Generator().manual_seed(0)
    shape = settings.sequences, settings.prefix + OWN
    numbers = torch.randint(model.config.vocab_size, shape, generator=generator)
    numbers[:, : settings.prefix] = numbers[0, : settings.prefix]
    prompts: list[list[int]] = numbers.tolist()
    weights, per_second = weight_bytes(model), bandwidth(settings, copied)
    with torch.inference_mode():
        theirs = transformers_times(model, prompts, settings)
        gc.collect()
        ours = Ours(model, prompts, settings)
        ours.prepare()
    off, tokens_off = ours.decode(sharing=False)
    on, tokens_on = ours.decode(sharing=True)
    token = token_bytes(ours.shapes, settings.dtype)
    own = settings.sequences * (OWN + (WARM_UP + settings.steps) / 2)
    shared = weights + token * (settings.prefix + own)
    copies = weights + token * (settings.sequences * settings.prefix + own)
    print(f"bandwidth measured by copying: {per_second / 1e9:.0f} GB/s")
    print(f"{'':22}{'ms per step (min-max)':>28}{'GB':>10}{'limit ms':>10}{'':>8}")
    generate = report("transformers generate", theirs, copies, per_second)
    slow = report("sharing off", off, copies, per_second)
    fast = report("sharing on", on, shared, per_second)
    print(f"sharing on against off {slow / fast:.2f}x, against generate {generate / fast:.2f}x")
    equal = torch.tensor(tokens_on) == torch.tensor(tokens_off)
    print(f"{equal.sum()} of {equal.numel()} tokens are the same with it on and off")


def main() -> None:
    """Read the options, print the machine, measure."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--device", default="cuda")
    options.add_argument("--sequences", type=int, default=32)
    options.add_argument("--prefix", type=int, default=4096)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--steps", type=int, default=32)
    options.add_argument("--tiny", action="store_true", help="a tiny model and a short prefix")
    args = options.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: this measures one (--tiny --device cpu only shows that it runs)")
    if args.tiny:
        args.sequences, args.prefix, args.layers, args.steps = 4, 256, 2, 8
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    settings = Settings(device, dtype, args.sequences, args.prefix, args.steps)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{where}; {platform.platform()}; Python {platform.python_version()}")
    print(f"torch {torch.__version__} (CUDA {torch.version.cuda}), {_triton()}", end="")
    print(f", transformers {transformers.__version__}; {dtype}; {args}")
    shape = SHAPE_TINY if args.tiny else SHAPE_8B
    model = build_model(shape, args.layers, settings)
    measure(model, settings, 2**24 if args.tiny else 2**30)


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return "no triton"
    return f"triton {triton.__version__}"


if __name__ == "__main__":
    main()
