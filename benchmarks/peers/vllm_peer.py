"""vLLM built for CPU: fp32, eager, prefix caching on."""

from collections.abc import Callable

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
