"""What LM Studio keeps, laid out as it does: found by its names, and only read."""

import json
from pathlib import Path

import pytest

from parrot_backend.engines.store import lm_studio
from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError
from tests.engines.store.places import small_gguf


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("place", [".lmstudio/models", ".cache/lm-studio/models"])
def test_a_model_is_found_by_its_name(home: Path, place: str) -> None:
    file = small_gguf(home / place / "org" / "Small-GGUF" / "Small-Q4_K_M.gguf")
    small_gguf(file.with_name("mmproj-Small-f16.gguf"))
    for name in ("org/Small-GGUF", "org/Small-GGUF:q4_k_m", "org/Small-GGUF/Small-Q4_K_M.gguf"):
        resolved = resolve_model(f"lmstudio:{name}")
        assert (resolved.name, resolved.path) == ("Small-Q4_K_M", str(file))
    (listed,) = lm_studio.found()
    assert (listed.name, listed.path) == ("lmstudio:org/Small-GGUF", file)


def test_of_several_one_is_named(home: Path) -> None:
    folder = home / ".lmstudio" / "models" / "org" / "small"
    for quant in ("Q5_0", "Q8_0"):
        small_gguf(folder / f"small-{quant}.gguf")
    with pytest.raises(InvalidRequestError, match=r"2 GGUF files, name one .*: Q5_0, Q8_0"):
        resolve_model("lmstudio:org/small")
    with pytest.raises(NotFoundError, match="no 'Q6_K'; there is: Q5_0, Q8_0"):
        resolve_model("lmstudio:org/small:Q6_K")
    names = [each.name for each in lm_studio.found()]
    assert names == ["lmstudio:org/small/small-Q5_0.gguf", "lmstudio:org/small/small-Q8_0.gguf"]
    assert [resolve_model(name).name for name in names] == ["small-Q5_0", "small-Q8_0"]


def test_its_settings_say_where_models_are(home: Path) -> None:
    (home / ".lmstudio-home-pointer").write_text(f"{home / 'studio'}\n")
    (home / "studio").mkdir()
    (home / "studio" / "settings.json").write_text(
        json.dumps({"downloadsFolder": str(home / "large disk")})
    )
    small_gguf(home / "large disk" / "org" / "a" / "a.gguf")
    small_gguf(home / "studio" / "models" / "org" / "b" / "b.gguf")
    assert [each.name for each in lm_studio.found()] == ["lmstudio:org/a", "lmstudio:org/b"]


@pytest.mark.parametrize("settings", ["", "{", "[]", '{"downloadsFolder": 7}', "[" * 200_000])
def test_settings_that_are_none_say_nothing(home: Path, settings: str) -> None:
    (home / ".lmstudio").mkdir()
    (home / ".lmstudio" / "settings.json").write_text(settings)
    assert list(lm_studio.found()) == []


@pytest.mark.parametrize(
    "name", ["", "small", "../../x", "org/..", "org/../../x", "org/small/../x", "org/small:../x"]
)
def test_a_name_leads_nowhere_else(home: Path, name: str) -> None:
    small_gguf(home / ".lmstudio" / "models" / "org" / "small" / "small.gguf")
    small_gguf(home / "x" / "x.gguf")
    with pytest.raises(NotFoundError):
        resolve_model(f"lmstudio:{name}")


def test_another_name_is_answered_with_what_there_is(home: Path) -> None:
    small_gguf(home / ".lmstudio" / "models" / "org" / "small" / "small.gguf")
    with pytest.raises(NotFoundError, match=r"no model 'org/other' .*has: lmstudio:org/small"):
        resolve_model("lmstudio:org/other")
