"""vLLM built for CPU: fp32, eager, prefix caching on.

By itself it keeps one core free for its front end; with `--all-cores` it computes on all of them.
"""

import os
import sys

if "--all-cores" in sys.argv:
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{(os.cpu_count() or 1) - 1}"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "4"

import vllm
from worker import Generate, Request, Result, serve


def load(path: str) -> tuple[str, Generate]:
    """See `worker.serve`."""
    engine = vllm.LLM(
        model=path,
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=True,
        max_model_len=4096,
        gpu_memory_utilization=0.4,
        disable_log_stats=True,
    )

    def generate(requests: list[Request]) -> Result:
        outputs = engine.generate(
            [{"prompt_token_ids": request.prompt} for request in requests],
            [
                vllm.SamplingParams(temperature=0, max_tokens=request.length, ignore_eos=True)
                for request in requests
            ],
            use_tqdm=False,
        )
        return Result(
            [list(output.outputs[0].token_ids) for output in outputs],
            shared=sum(output.num_cached_tokens or 0 for output in outputs),
        )

    cores = "all cores" if "--all-cores" in sys.argv else "one core for its front end"
    return f"vllm {vllm.__version__}, fp32, eager, prefix caching, {cores}", generate


if __name__ == "__main__":
    serve(load)
