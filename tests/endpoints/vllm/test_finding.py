"""Where vLLM is, and whether there is CUDA."""

from pathlib import Path

import pytest

from parrot_backend.endpoints.vllm.finding import find_vllm, has_cuda
from parrot_backend.wire.errors import InvalidRequestError


def executable(path: Path, script: str = "#!/bin/sh\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def test_the_named_one_goes_before_that_beside_python_before_that_on_the_path(tmp_path):
    beside = executable(tmp_path / "env/bin/vllm")
    python = str(tmp_path / "env/bin/python")
    on_path = executable(tmp_path / "path/vllm")
    named = executable(tmp_path / "named/bin/vllm")
    path = {"PATH": str(tmp_path / "path")}
    assert find_vllm({**path, "PARROT_VLLM": named}, python) == named
    assert find_vllm({**path, "PARROT_VLLM": str(tmp_path / "named")}, python) == named
    assert find_vllm(path, python) == beside
    assert find_vllm(path, "/no/bin/python") == on_path
    assert find_vllm({"PATH": str(tmp_path)}, "/no/bin/python") is None


def test_a_wrong_name_is_said(tmp_path):
    with pytest.raises(InvalidRequestError, match="PARROT_VLLM is '/no/such': there is no vllm"):
        find_vllm({"PARROT_VLLM": "/no/such"})
    (tmp_path / "vllm").write_text("not executable")
    with pytest.raises(InvalidRequestError, match="there is no vllm"):
        find_vllm({"PARROT_VLLM": str(tmp_path / "vllm")})


def test_a_driver_with_gpus_is_cuda(tmp_path):
    gpus = tmp_path / "gpus"
    assert not has_cuda({"PATH": ""}, gpus)
    gpus.mkdir()
    assert not has_cuda({"PATH": ""}, gpus)
    (gpus / "0000:01:00.0").mkdir()
    assert has_cuda({"PATH": ""}, gpus)
    assert has_cuda({"PATH": "", "CUDA_VISIBLE_DEVICES": "1"}, gpus)
    assert not has_cuda({"PATH": "", "CUDA_VISIBLE_DEVICES": ""}, gpus)
    assert not has_cuda({"PATH": "", "CUDA_VISIBLE_DEVICES": "-1"}, gpus)


@pytest.mark.parametrize(
    ("told", "cuda"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'", True),
        ("echo 'No devices found.'", False),
        ("echo failed; exit 9", False),
    ],
)
def test_where_the_driver_has_no_folder_its_tool_tells(tmp_path, told, cuda):
    executable(tmp_path / "bin/nvidia-smi", f"#!/bin/sh\n{told}\n")
    assert has_cuda({"PATH": f"{tmp_path}/bin"}, tmp_path / "none") is cuda
