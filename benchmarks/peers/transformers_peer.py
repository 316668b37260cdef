"""transformers' own `generate`, fp32: one batch, padded on the left."""

from collections.abc import Callable

import torch
import transformers
from worker import Job, serve


def load(path: str) -> tuple[str, Callable[[Job], list[list[int]]]]:
    """See `worker.serve`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def generate(job: Job) -> list[list[int]]:
        width = max(len(prompt) for prompt, _ in job)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in job])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in job])
        count = max(count for _, count in job)
        output = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        return output[:, width:].tolist()

    return f"transformers {transformers.__version__}, torch {torch.__version__}", generate


serve(load)
