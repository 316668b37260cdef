"""The hub's models: those in its cache, laid out as it does, and pulls from a server in its place."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from parrot_backend.engines.store import hub
from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.engines.store.hub import HubName, cached, hub_name
from parrot_backend.engines.store.hub_fetching import ANSWER_SECONDS
from parrot_backend.wire.errors import InvalidRequestError
from tests.engines.store.places import (
    Hub,
    in_hub_cache,
    serving_hub,
    small_gguf,
    whole_model,
)

SHARDED = whole_model() | {
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors", '
    b'"b": "model-2.safetensors"}}',
    "model-1.safetensors": b"1",
    "model-2.safetensors": b"2",
}
del SHARDED["model.safetensors"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def gguf(tmp_path: Path) -> bytes:
    return small_gguf(tmp_path / "small.gguf").read_bytes()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/a.b-1B", HubName("org/a.b-1B")),
        ("org/a-GGUF:Q4_K_M", HubName("org/a-GGUF", "Q4_K_M")),
        ("hf.co/org/a-GGUF:q8_0", HubName("org/a-GGUF", "q8_0")),
        ("huggingface.co/org/a", HubName("org/a")),
        ("a", None),
        ("a/b/c", None),
        ("../b", None),
        ("org/a:", None),
        ("org/a:../b", None),
        ("org/a b", None),
        ("https://hf.co/org/a", None),
    ],
)
def test_names(text: str, name: HubName | None) -> None:
    assert hub_name(text) == name


def test_what_is_whole_in_the_cache_is_found(cache: Path, gguf: bytes) -> None:
    whole = in_hub_cache(cache, "org/whole", whole_model())
    in_hub_cache(cache, "org/half", {"config.json": b"{}", "tokenizer.json": b"{}"})
    files = {"a-Q4_K_M.gguf": gguf, "a-Q8_0.gguf": gguf + b"\0", "README.md": b""}
    quants = in_hub_cache(cache, "org/a-GGUF", files)
    assert cached(HubName("org/whole")) == whole
    assert cached(HubName("org/half")) is None
    assert cached(HubName("org/nothing")) is None
    assert cached(HubName("org/a-GGUF")) == quants / "a-Q4_K_M.gguf"
    assert cached(HubName("org/a-GGUF", "Q6_K")) is None
    resolved = resolve_model("hf.co/org/a-GGUF:Q8_0")
    assert (resolved.name, Path(resolved.path)) == ("org/a-GGUF:Q8_0", quants / "a-Q8_0.gguf")
    assert [each.name for each in hub.found()] == [
        "org/a-GGUF:Q4_K_M",
        "org/a-GGUF:Q8_0",
        "org/whole",
    ]


def test_a_model_without_one_of_its_shards_is_not_whole(cache: Path) -> None:
    folder = in_hub_cache(cache, "org/large", SHARDED)
    assert cached(HubName("org/large")) == folder
    (folder / "model-2.safetensors").unlink()
    assert cached(HubName("org/large")) is None
    assert list(hub.found()) == []


def test_of_several_files_in_the_cache_one_is_named(cache: Path, gguf: bytes) -> None:
    in_hub_cache(cache, "org/a", {"a-Q5_0.gguf": gguf, "a-Q8_0.gguf": gguf})
    with pytest.raises(InvalidRequestError, match="'org/a' in the hub's cache holds 2 GGUF files"):
        cached(HubName("org/a"))


def test_a_cache_that_is_none_has_nothing(cache: Path) -> None:
    assert list(hub.found()) == []
    cache.mkdir()
    (cache / "models--org--a" / "refs").mkdir(parents=True)
    (cache / "models--org--a" / "refs" / "main").write_bytes(b"../../../../etc\xff")
    assert cached(HubName("org/a")) is None
    assert list(hub.found()) == []


# With a server


def parrot(
    *arguments: str, home: Path, url: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    here = {"HF_HOME": str(home / "hf"), "PARROT_CACHE_DIR": str(home / "cache"), "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "parrot_backend", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**clean, **here, "HF_ENDPOINT": url, "NO_PROXY": "*", **environment},
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1].removeprefix("parrot: error: ")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    from tests.engines.store.tiny_gguf import write_gguf

    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(file)
    tiny = file.read_bytes()
    return {"a-Q4_K_M.gguf": tiny, "a-Q8_0.gguf": tiny, "config.json": b"{}", "README.md": b""}


@pytest.fixture
def server(files: Mapping[str, bytes]) -> Iterator[Hub]:
    junk = {"original/consolidated.pth": b"0", "model.onnx": b"0", "run.py": b"raise SystemExit"}
    two_forms = SHARDED | {"pytorch_model.bin.index.json": b"{}", "pytorch_model.bin": b"0"}
    with serving_hub(
        {
            "org/whole": {**whole_model(), "chat_template.jinja": b"", **junk},
            "org/large": two_forms,
            "org/a-GGUF": files,
            "org/no-tokenizer": {"config.json": b"{}", "model.safetensors": b"0"},
            "org/adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"0"},
            "org/parts": {"a-Q8_0-00001-of-00002.gguf": b"1", "a-Q8_0-00002-of-00002.gguf": b"2"},
        }
    ) as hub:
        yield hub


def test_a_model_is_pulled_and_then_used_without_asking(server: Hub, tmp_path: Path) -> None:
    result = parrot("models", "pull", "org/whole", home=tmp_path, url=server.url)
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert sorted(file.name for file in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert result.stderr.splitlines() == ["parrot: fetching org/whole (0 MB, once)"]
    server.asked.clear()
    module = "parrot_backend.engines.store.hub_fetching"
    code = f"from {module} import *; print(fetched(HubName('org/whole')))"
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": server.url}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert told.stdout.strip() == str(folder), told.stderr
    assert server.asked == []


def test_one_form_of_the_weights_is_fetched(server: Hub, tmp_path: Path) -> None:
    result = parrot("models", "pull", "org/large", home=tmp_path, url=server.url)
    assert result.returncode == 0, result.stderr
    names = {file.name for file in Path(result.stdout.strip()).iterdir()}
    assert {"model-1.safetensors", "model-2.safetensors"} <= names
    assert "pytorch_model.bin" not in names


@pytest.mark.parametrize("name", ["org/a-GGUF:Q8_0", "org/a-GGUF"])
def test_one_quantization_is_pulled_and_converted(server: Hub, tmp_path: Path, name: str) -> None:
    result = parrot("models", "pull", name, home=tmp_path, url=server.url)
    assert result.returncode == 0, result.stderr
    assert (Path(result.stdout.strip()) / "model.safetensors").is_file()
    fetched = [path.name for path in (tmp_path / "hf").rglob("*.gguf")]
    assert fetched == ["a-Q8_0.gguf" if name.endswith("Q8_0") else "a-Q4_K_M.gguf"]
    assert f"fetching {name} " in result.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("org/a-GGUF:Q5_0", "'org/a-GGUF' on the hub has no 'Q5_0'; there is: Q4_K_M, Q8_0"),
        ("org/nothing", "the hub has no model 'org/nothing': check its name"),
        ("org/no-tokenizer", "is no whole model, it lacks tokenizer ("),
        ("org/adapter", "holds no model that can be run"),
        ("org/parts:Q8_0", "one of 2 parts: join them"),
        ("org/" + "a" * 200, "the hub has no model 'org/aaa"),
    ],
)
def test_what_can_not_be_pulled_is_one_line_before_anything_is_fetched(
    server: Hub, tmp_path: Path, name: str, reason: str
) -> None:
    assert reason in error_of(parrot("models", "pull", name, home=tmp_path, url=server.url))
    assert not [path for path in server.asked if "/resolve/" in path]


def test_serving_says_the_same(server: Hub, tmp_path: Path) -> None:
    serve = ("serve", "--port", "0", "--model")
    told = error_of(parrot(*serve, "org/a-GGUF:Q5_0", home=tmp_path, url=server.url))
    assert "there is: Q4_K_M, Q8_0" in told
    told = error_of(parrot(*serve, "org/nothing", home=tmp_path, url=server.url))
    assert "the hub has no model 'org/nothing'" in told


@pytest.fixture
def deaf() -> Iterator[str]:
    """A server that takes connections and never answers, as firewalls do."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def importing() -> float:
    """How long a command takes that has nothing to fetch."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import parrot_backend.cli, huggingface_hub.hf_api"], check=True
    )
    return time.monotonic() - began


def test_a_hub_that_does_not_answer_is_told_within_three_seconds(deaf: str, tmp_path: Path) -> None:
    before = importing()
    began = time.monotonic()
    told = error_of(parrot("models", "pull", "org/whole", home=tmp_path, url=deaf))
    assert time.monotonic() - began < ANSWER_SECONDS + before + 1
    assert f"the hub at {deaf} can't be reached (no answer within 3 s)" in told
    assert "HF_ENDPOINT" in told


def test_a_hub_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    told = error_of(parrot("models", "pull", "org/whole", home=tmp_path, url="http://127.0.0.1:1"))
    assert "can't be reached (" in told
    assert "refused" in told


def test_who_wants_to_wait_longer_says_so(deaf: str, tmp_path: Path) -> None:
    result = parrot(
        *("models", "pull", "org/whole"), home=tmp_path, url=deaf, HF_HUB_ETAG_TIMEOUT="1"
    )
    assert "no answer within 1 s" in error_of(result)


def test_offline_nothing_is_asked(server: Hub, tmp_path: Path) -> None:
    result = parrot(
        *("models", "pull", "org/whole"), home=tmp_path, url=server.url, HF_HUB_OFFLINE="1"
    )
    assert "HF_HUB_OFFLINE keeps from asking" in error_of(result)
    assert server.asked == []
