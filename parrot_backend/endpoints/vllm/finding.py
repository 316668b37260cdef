"""Where vLLM is on this machine, and whether it is what such a machine wants."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parrot_backend.wire.errors import InvalidRequestError

INSTALL = (
    "pip install 'parrot-integrations[vllm]', or name one of another environment in PARROT_VLLM"
)

_GPUS = Path("/proc/driver/nvidia/gpus")
_LISTING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides which engine a server takes by itself."""

    cuda: bool
    vllm: str | None

    @classmethod
    def this(cls) -> "Machine":
        """The machine that we are on; nothing is imported for it."""
        return cls(has_cuda(os.environ), find_vllm(os.environ))


def has_cuda(environment: Mapping[str, str], gpus: Path = _GPUS) -> bool:
    """Whether programs here may use a GPU of NVIDIA's."""
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if gpus.is_dir():
        return any(gpus.iterdir())
    # WSL has no such folder; the driver's own tool tells there.
    listing = shutil.which("nvidia-smi", path=environment.get("PATH"))
    return listing is not None and _lists_gpu(listing)


def _lists_gpu(command: str) -> bool:
    try:
        told = subprocess.run(  # noqa: S603 - the driver's own
            [command, "-L"],
            capture_output=True,
            timeout=_LISTING_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.returncode == 0 and told.stdout.startswith(b"GPU ")


def find_vllm(environment: Mapping[str, str], python: str = sys.executable) -> str | None:
    """The `vllm` command: PARROT_VLLM's, that beside `python`, or the first on the path.

    PARROT_VLLM is the command or the folder of its environment.

    Raises:
        InvalidRequestError: there is none where PARROT_VLLM says.
    """
    if named := environment.get("PARROT_VLLM"):
        for command in (Path(named), Path(named, "bin", "vllm")):
            if _runs(command):
                return str(command.absolute())
        raise InvalidRequestError(
            f"PARROT_VLLM is '{named}': there is no vllm; name the command or its environment's folder"
        )
    beside = Path(python).with_name("vllm")
    return str(beside) if _runs(beside) else shutil.which("vllm", path=environment.get("PATH"))


def _runs(command: Path) -> bool:
    return command.is_file() and os.access(command, os.X_OK)


def the_vllm() -> str:
    """The `vllm` command of this machine.

    Raises:
        InvalidRequestError: there is none; says what to install.
    """
    if (found := find_vllm(os.environ)) is None:
        raise InvalidRequestError(f"vLLM is not installed: {INSTALL}")
    return found
