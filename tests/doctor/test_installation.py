"""What is wrong with an installation is found, and what is right is no fault."""

import os
import socket
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread

import pytest

from parrot_backend import DEFAULT_MODEL
from parrot_backend.doctor.findings import Finding, table
from parrot_backend.doctor.installation import checks, machine, store, surroundings, versions
from parrot_backend.endpoints.vllm import finding as finding_vllm
from parrot_backend.engines.store.catalog import models_folder
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import LANES
from parrot_backend.resident.records import Record


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one(findings, check: str) -> Finding:
    (finding,) = [each for each in findings if each.check == check]
    return finding


def test_here_is_nothing_to_mend():
    findings = checks.look()
    assert [each for each in findings if each.level == "fault"] == []
    assert not any("can't be looked at" in each.found for each in findings)


def test_a_check_that_fails_is_a_finding_and_the_others_go_on():
    def broken():
        raise ValueError("no such thing")
        yield

    findings = checks.look({"first": broken, "second": lambda: iter([Finding("x", "ok", "y")])})
    assert [each.level for each in findings] == ["warning", "ok"]
    assert "ValueError: no such thing" in findings[0].found


# Versions


@pytest.fixture
def installed(monkeypatch):
    """Versions of packages, instead of those that are installed; None is one that is not."""
    pretended: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        told = pretended.get(name, "")
        if told is None:
            raise metadata.PackageNotFoundError(name)
        return told or real(name)

    monkeypatch.setattr(versions.metadata, "version", version)
    return pretended


def test_an_older_package_is_a_fault_that_says_what_to_install(installed):
    installed["torch"] = "2.1.0"
    finding = one(versions.look(), "torch")
    assert finding.level == "fault"
    assert finding.found == "2.1.0, not >=2.9"
    assert finding.advice == "pip install 'torch>=2.9'"


def test_a_framework_that_is_too_new_is_a_fault_and_none_is_not(installed):
    installed |= {"langchain-core": "2.0.0", "llama-index-core": None, "vllm": None}
    findings = list(versions.look())
    assert one(findings, "langchain-core").level == "fault"
    assert one(findings, "langchain-core").advice == "pip install 'parrot-integrations[langchain]'"
    assert one(findings, "llama-index-core").found == "not installed"
    assert one(findings, "vllm").level == "ok"


def test_a_backend_that_is_not_whole_says_what_is_missing(installed):
    installed["numba"] = None
    finding = one(versions.look(), "backend")
    assert (finding.level, finding.found) == ("warning", "not installed: numba")
    assert "parrot-integrations[backend]" in finding.advice


def test_a_local_build_is_in_range():
    assert versions.is_in("2.13.0+cpu", ">=2.9")
    assert not versions.is_in("2.13.0", "<2")


# The model store


def test_a_model_that_is_not_there_is_no_fault(cache):
    finding = one(store.look(), "model store")
    assert finding.level == "warning"
    assert "parrot models pull" in finding.advice


def test_a_model_that_is_not_whole_is_a_fault(cache):
    folder = models_folder() / DEFAULT_MODEL
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    finding = one(store.look(), "model store")
    assert finding.level == "fault"
    assert "lacks weights" in finding.found
    assert finding.advice == f"fetch it again: parrot models pull {DEFAULT_MODEL}"


@pytest.mark.parametrize(("free", "level"), [(10**6, "fault"), (1.5e9, "warning"), (1e10, "ok")])
def test_how_much_room_is_left(cache, monkeypatch, free, level):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: usage(0, 0, free))
    assert one(store.look(), "disk").level == level


# Folders, the port, backends


def test_a_store_that_everybody_may_write_is_a_fault(cache):
    cache.mkdir()
    cache.chmod(0o777)
    finding = one(surroundings.folders(), "cache")
    assert finding.level == "fault"
    assert f"chmod o-w {cache}" in finding.advice


def test_a_file_where_the_store_should_be_is_a_fault(cache):
    cache.write_text("")
    assert one(surroundings.folders(), "cache").level == "fault"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_can_not_be_written_is_a_fault(cache):
    cache.mkdir(0o500)
    assert one(surroundings.folders(), "cache").level == "fault"


def test_no_folder_for_sockets_is_a_fault(cache, monkeypatch):
    def none():
        raise OSError("there is no folder for the sockets of backends")

    monkeypatch.setattr(surroundings, "runtime_folder", none)
    finding = one(surroundings.folders(), "sockets")
    assert finding.level == "fault"
    assert "XDG_RUNTIME_DIR" in finding.advice


def test_a_port_that_is_in_use_is_no_fault():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        (finding,) = surroundings.port(number)
    assert finding.level == "warning"
    assert finding.found == f"{number} is in use by another program"
    (finding,) = surroundings.port(number)
    assert finding.found == f"{number} is free"


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok", "version": "9.9"}')

    def log_message(self, *_):
        pass


def test_a_parrot_on_the_port_is_recognized():
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.handle_request, daemon=True).start()
        (finding,) = surroundings.port(server.server_port)
    assert finding.level == "ok"
    assert "a Parrot server (9.9)" in finding.found


@pytest.mark.parametrize(
    ("state", "version", "level"),
    [("ready", None, "ok"), ("ready", "0.0.1", "warning"), ("not answering", None, "fault")],
)
def test_backends_that_hang_or_are_of_another_version(monkeypatch, state, version, level):
    record = Record("model", version or surroundings.__version__, "/the/log", 0.0, pid=77)
    resident = namedtuple("Resident", "record state")(record, state)
    monkeypatch.setattr(surroundings, "residents", lambda: [resident])
    (finding,) = surroundings.backends()
    assert finding.level == level
    assert (level == "ok") == ("parrot stop 77" not in finding.advice)


# The machine


def test_the_vectors_are_those_that_the_kernels_have():
    (finding,) = machine.processor()
    assert f"vectors of {32 * LANES} bits" in finding.found or "NEON" in finding.found


def test_more_threads_than_cores_are_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "512")
    (finding,) = machine.cores()
    assert finding.level == "warning"
    assert "unset it" in finding.advice


@pytest.mark.parametrize(("free", "level"), [(None, "ok"), (10**8, "fault"), (10**10, "ok")])
def test_whether_the_default_model_fits(monkeypatch, free, level):
    monkeypatch.setattr(machine, "available_memory", lambda: free)
    (finding,) = machine.memory()
    assert finding.level == level


@pytest.mark.parametrize(
    ("cuda", "vllm", "level"),
    [(False, False, "ok"), (True, True, "ok"), (True, False, "warning")],
)
def test_a_gpu_that_nothing_uses_is_told(monkeypatch, tmp_path, cuda, vllm, level):
    """vLLM's command may be in another environment, where `parrot serve` finds it too."""
    monkeypatch.setattr(machine, "has_cuda", lambda environment: cuda)
    monkeypatch.setattr(finding_vllm.sys, "executable", "/no/python")
    monkeypatch.delenv("PARROT_VLLM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if vllm:
        (tmp_path / "vllm").write_text("#!/bin/sh\n")
        (tmp_path / "vllm").chmod(0o755)
        monkeypatch.setenv("PARROT_VLLM", str(tmp_path / "vllm"))
    (finding,) = machine.gpu()
    assert finding.level == level
    assert ("vllm:MODEL" in finding.advice) == (level == "warning")
    assert (str(tmp_path / "vllm") in finding.found) == vllm


@pytest.mark.parametrize("cuda", [True, False])
def test_a_vllm_that_is_not_where_it_is_said_to_be_is_a_fault(monkeypatch, cuda):
    monkeypatch.setattr(machine, "has_cuda", lambda environment: cuda)
    monkeypatch.setenv("PARROT_VLLM", "/no/such/folder")
    (finding,) = machine.gpu()
    assert finding.level == "fault"
    assert "PARROT_VLLM is '/no/such/folder'" in finding.found


# The table


def test_a_table_is_as_wide_as_it_may_be_and_says_everything():
    words = [f"word{number}" for number in range(60)]
    findings = [Finding("check", "missing", " ".join(words[:30]), " ".join(words[30:]))]
    text = table(findings, "ADVICE", width=100)
    assert max(map(len, text.splitlines())) <= 100
    assert all(word in text for word in words)
