"""vLLM built for CPU: fp32, eager, prefix caching on.

By itself it keeps one core free for its front end; with `--all-cores` it computes on all of them.
"""

import os
import sys
from collections.abc import Callable

if "--all-cores" in sys.argv:
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{(os.cpu_count() or 1) - 1}"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "4"

import vllm
from worker import Job, serve


def load(path: str) -> tuple[str, Callable[[Job], list[list[int]]]]:
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

    def generate(job: Job) -> list[list[int]]:
        outputs = engine.generate(
            [{"prompt_token_ids": prompt} for prompt, _ in job],
            [
                vllm.SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
                for _, count in job
            ],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    return f"vllm {vllm.__version__}", generate


if __name__ == "__main__":
    serve(load)
