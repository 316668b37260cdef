"""The machine as our engine will use it: vectors, cores, memory; and a GPU that it does not use."""

import importlib.util
import math
import os
from collections.abc import Iterator

from parrot_backend import DEFAULT_MODEL
from parrot_backend.doctor.findings import Finding
from parrot_backend.endpoints.vllm.finding import INSTALL, find_vllm, has_cuda
from parrot_backend.engines.cores import cpu_quota, usable_cores
from parrot_backend.engines.free_memory import available_memory
from parrot_backend.wire.errors import InvalidRequestError

# The default model's weights in float32, packed, and what Python and torch take beside them.
_NEEDED = 1_200_000_000


def processor() -> Iterator[Finding]:
    """Which vectors the kernels are compiled for."""
    if importlib.util.find_spec("llvmlite") is None:
        yield Finding("processor", "ok", "not looked at: the backend is not installed")
        return
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    name = binding.get_host_cpu_name()
    if features.get("avx512f"):
        yield Finding("processor", "ok", f"{name}: vectors of 512 bits (AVX-512)")
    elif features.get("avx2") and features.get("fma"):
        yield Finding("processor", "ok", f"{name}: vectors of 256 bits (AVX2, FMA)")
    elif features.get("neon"):
        yield Finding("processor", "ok", f"{name}: vectors of 128 bits (NEON)")
    else:
        advice = (
            "answers come several times as slowly; use a newer processor, or an engine elsewhere"
        )
        yield Finding("processor", "warning", f"{name}: without AVX2 and FMA", advice)


def cores() -> Iterator[Finding]:
    """How many threads compute, and what limits them."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cpu_quota()
    used = usable_cores()
    limit = "" if math.isinf(quota) else f", with a quota of {quota:g}"
    told = f"{used} threads on {allowed} of {os.cpu_count()} cores{limit}"
    if used > math.ceil(min(allowed, quota)):
        yield Finding("cores", "warning", told, "OMP_NUM_THREADS is more than there are: unset it")
    elif quota < 1:
        yield Finding(
            "cores", "warning", told, "less than a core: give the container more, or wait long"
        )
    else:
        yield Finding("cores", "ok", told)


def memory() -> Iterator[Finding]:
    """Whether the default model fits."""
    free = available_memory()
    if free is None:
        yield Finding("memory", "ok", "not known: only Linux tells")
        return
    told = f"{free / 1e9:.1f} GB available, {DEFAULT_MODEL} takes about {_NEEDED / 1e9:.1f} GB"
    if free < _NEEDED:
        advice = "end other programs, or parrot serve --quantization int8 --kv-memory 128MiB"
        yield Finding("memory", "fault", told, advice)
    else:
        yield Finding("memory", "ok", told)


def gpu() -> Iterator[Finding]:
    """Our own engine runs on the CPU: a GPU is vLLM's to use, which `parrot serve` would find so."""
    try:
        vllm = find_vllm(os.environ)
    except InvalidRequestError as error:
        yield Finding("GPU", "fault", error.message, "unset it, or parrot serve doesn't start")
        return
    if not has_cuda(os.environ):
        yield Finding("GPU", "ok", "none: answers are computed on the CPU")
    elif vllm is None:
        advice = f"{INSTALL}; then: parrot serve --engine vllm:MODEL"
        yield Finding("GPU", "warning", "there is one, and no vllm command", advice)
    else:
        yield Finding("GPU", "ok", f"there is one, and vllm to use it: {vllm}")
