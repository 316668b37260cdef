"""OpenVINO GenAI's continuous batching over a GGUF file, prefix caching on."""

import numpy
import openvino
import openvino_genai
from worker import Generate, Request, Result, serve


def load(path: str) -> tuple[str, Generate]:
    """See `worker.serve`; `path` is a GGUF file."""
    scheduling = openvino_genai.SchedulerConfig()
    scheduling.enable_prefix_caching = True
    scheduling.cache_size = 4
    pipeline = openvino_genai.ContinuousBatchingPipeline(path, scheduling, "CPU")

    def settings(count: int) -> openvino_genai.GenerationConfig:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
        return config

    def generate(requests: list[Request]) -> Result:
        outputs = pipeline.generate(
            [openvino.Tensor(numpy.array([r.prompt], dtype=numpy.int64)) for r in requests],
            [settings(request.length) for request in requests],
        )
        return Result([output.m_generation_ids[0] for output in outputs])

    version = f"openvino-genai {openvino_genai.__version__}, {path.rpartition('/')[2]}"
    return f"{version}, prefix caching", generate


serve(load)
