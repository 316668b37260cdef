"""transformers' own `generate`, fp32: one batch, padded on the left."""

import torch
import transformers
from worker import Generate, Request, Result, serve


def load(path: str) -> tuple[str, Generate]:
    """See `worker.serve`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def generate(requests: list[Request]) -> Result:
        prompts = [request.prompt for request in requests]
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        count = max(request.length for request in requests)
        output = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        return Result(output[:, width:].tolist(), shared=0)

    version = f"transformers {transformers.__version__}, torch {torch.__version__}, fp32, one batch"
    return version, generate


serve(load)
