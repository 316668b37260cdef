"""What Ollama keeps, laid out as it does: found by its names, and only read."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.engines.store import ollama
from parrot_backend.engines.store.catalog import pull, resolve_model
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError, ParrotError
from tests.engines.store.places import in_ollama, small_gguf
from tests.engines.store.tiny_gguf import write_gguf

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "ollama"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return small_gguf(tmp_path / "small.gguf")


@pytest.mark.parametrize(
    ("place", "name", "short"),
    [
        (f"{LIBRARY}/llama3.2/latest", "llama3.2", "llama3.2"),
        (f"{LIBRARY}/llama3.2/latest", "llama3.2:latest", "llama3.2"),
        (f"{LIBRARY}/llama3.2/3b", "llama3.2:3b", "llama3.2:3b"),
        ("registry.ollama.ai/me/mine/latest", "me/mine", "me/mine"),
        ("hf.co/org/a-GGUF/Q4_K_M", "hf.co/org/a-GGUF:Q4_K_M", "hf.co/org/a-GGUF:Q4_K_M"),
        ("localhost:5000/me/mine/v1", "localhost:5000/me/mine:v1", "localhost:5000/me/mine:v1"),
    ],
)
def test_a_model_is_found_by_its_name(
    models: Path, gguf: Path, place: str, name: str, short: str
) -> None:
    in_ollama(models, place, gguf)
    resolved = resolve_model(f"ollama:{name}")
    assert resolved.name == short
    assert Path(resolved.path).read_bytes() == gguf.read_bytes()
    (listed,) = ollama.found()
    assert (listed.name, str(listed.path)) == (f"ollama:{short}", resolved.path)
    assert (listed.size, listed.whole) == (gguf.stat().st_size, True)


def test_a_file_without_a_name_of_its_own_is_converted_and_loaded(
    models: Path, tmp_path: Path
) -> None:
    from parrot_backend.engines.torch_engine.load.loader import load_model

    write_gguf(tmp_path / "tiny.gguf")
    in_ollama(models, f"{LIBRARY}/tiny/latest", tmp_path / "tiny.gguf")
    loaded = load_model(resolve_model("ollama:tiny").path)
    assert loaded.context_length == 64
    assert (pull("ollama:tiny") / "model.safetensors").is_file()


def test_the_default_folders_are_the_user_s_and_the_service_s(
    tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ollama, "_SERVICE", tmp_path / "service")
    in_ollama(tmp_path / "service", f"{LIBRARY}/theirs/latest", gguf)
    in_ollama(tmp_path / ".ollama" / "models", f"{LIBRARY}/mine/latest", gguf)
    assert [each.name for each in ollama.found()] == ["ollama:mine", "ollama:theirs"]
    assert "service" in resolve_model("ollama:theirs").path


def test_another_name_is_answered_with_what_there_is(models: Path, gguf: Path) -> None:
    in_ollama(models, f"{LIBRARY}/llama3.2/3b", gguf)
    with pytest.raises(NotFoundError, match=r"no model 'llama3\.2' .*has: ollama:llama3\.2:3b"):
        resolve_model("ollama:llama3.2")


@pytest.mark.parametrize(
    "name",
    ["", ":", "/", "a/b/c/d", "../../etc/passwd", "a/../b", "a:../../x", ".", "a:b:c", "a" * 9999],
)
def test_a_name_leads_nowhere_else(models: Path, tmp_path: Path, gguf: Path, name: str) -> None:
    in_ollama(models, f"{LIBRARY}/small/latest", gguf)
    for outside in (tmp_path / "x", models / "x", models / "manifests" / "x"):
        outside.parent.mkdir(parents=True, exist_ok=True)
        outside.write_text((models / "manifests" / LIBRARY / "small" / "latest").read_text())
    with pytest.raises(NotFoundError):
        resolve_model(f"ollama:{name}")


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 64 + "/../../x",
        "sha256-" + "0" * 64,
        "md5:" + "0" * 32,
        "/etc/passwd",
        "",
        7,
        None,
        ["sha256:" + "0" * 64],
    ],
)
def test_a_digest_leads_nowhere_else(models: Path, gguf: Path, digest: Any) -> None:
    in_ollama(models, f"{LIBRARY}/bad/latest", gguf, digest=digest)
    with pytest.raises(InvalidRequestError, match="names no model; `ollama pull bad` fetches it"):
        resolve_model("ollama:bad")
    assert list(ollama.found()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"layers": 7}',
        b'{"layers": [7, null, {}]}',
        b'{"layers": {"a": 1}}',
        b"[" * 200_000,
        b'{"layers": [' + b" " * (2 << 20) + b"]}",
    ],
    ids=range(9),
)
def test_a_manifest_that_is_none_is_told(models: Path, gguf: Path, content: bytes) -> None:
    in_ollama(models, f"{LIBRARY}/bad/latest", gguf).write_bytes(content)
    with pytest.raises(InvalidRequestError, match="names no model"):
        resolve_model("ollama:bad")
    assert list(ollama.found()) == []


@pytest.mark.parametrize("size", [0, 1, -1, 1 << 80])
def test_a_blob_of_another_size_was_not_fetched_to_its_end(
    models: Path, gguf: Path, size: int
) -> None:
    in_ollama(models, f"{LIBRARY}/cut/latest", gguf, size=size)
    with pytest.raises(InvalidRequestError, match=f"of {size:,} bytes; `ollama pull cut`"):
        resolve_model("ollama:cut")
    (listed,) = ollama.found()
    assert (listed.whole, listed.size) == (False, gguf.stat().st_size)


def test_a_blob_that_is_not_there_is_told(models: Path, gguf: Path) -> None:
    in_ollama(models, f"{LIBRARY}/gone/latest", gguf)
    next((models / "blobs").iterdir()).unlink()
    with pytest.raises(InvalidRequestError, match="has 0 of"):
        resolve_model("ollama:gone")


def test_what_only_ollama_can_run_is_refused_with_the_reason(
    models: Path, gguf: Path, tmp_path: Path
) -> None:
    in_ollama(models, f"{LIBRARY}/tuned/latest", gguf, layers={"adapter": "sha256:" + "1" * 64})
    (tmp_path / "weights").write_bytes(b"no GGUF file at all")
    in_ollama(models, f"{LIBRARY}/other/latest", tmp_path / "weights")
    with pytest.raises(InvalidRequestError, match="with an adapter"):
        resolve_model("ollama:tuned")
    with pytest.raises(InvalidRequestError, match="another form than GGUF"):
        resolve_model("ollama:other")


def test_a_folder_that_is_a_file_or_somebody_else_s_has_nothing(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.write_text("")
    assert list(ollama.found()) == []
    with pytest.raises(ParrotError, match="it has: none"):
        resolve_model("ollama:small")

    def refused(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", refused)
    monkeypatch.setattr(Path, "is_file", refused)
    assert list(ollama.found()) == []
    with pytest.raises(NotFoundError):
        ollama.model_of("small")


def test_finding_imports_nothing_heavy(models: Path, gguf: Path) -> None:
    in_ollama(models, f"{LIBRARY}/small/latest", gguf)
    code = (
        "import sys; from parrot_backend.engines.store.catalog import resolve_model; "
        "resolve_model('ollama:small'); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub') "
        "if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
