"""`parrot doctor` as a user types it: what it prints, what it keeps, and the code that it ends with."""

import json
import socket

import pytest

from parrot_backend.cli import main
from parrot_backend.doctor import telling
from parrot_backend.doctor.engine import examination
from parrot_backend.doctor.engine.patient import Patient
from parrot_backend.doctor.findings import Finding
from parrot_backend.endpoints.cards import MeasuredCard, read_card, write_card
from tests.doctor.faulty import FaultyEngine, served
from tests.test_architecture import TORCH, WEB, loaded_by


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def few_checks(monkeypatch):
    """Only what is quick, for the checks have their own tests."""
    chosen = {name: examination.CHECKS[name] for name in ("context", "logprobs", "token ids")}
    monkeypatch.setattr(examination, "CHECKS", chosen)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch):
    monkeypatch.setattr(examination, "_REST_SECONDS", 0.0)


def doctor(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["doctor", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.usefixtures("few_checks")
def test_an_engine_is_told_as_a_table_and_its_card_is_kept(capsys):
    with served(FaultyEngine(logprobs="hidden")) as url:
        code, out, err = doctor(capsys, f"{url}/v1", "--quick")
        assert code == 0
        assert "kept for serving" in err
        assert "vLLM 0.33.0" in out
        assert "WHAT IT COSTS" in out
        assert "not told" in out
        card = read_card(url, "faulty", "0.33.0")
    assert card is not None
    assert (card.tells_logprobs, card.context_length, card.takes_token_ids) == (False, 2048, True)
    assert card.priority_order is None


@pytest.mark.usefixtures("few_checks")
def test_json_is_for_programs_and_no_card_keeps_none(capsys):
    with served(FaultyEngine()) as url:
        code, out, _ = doctor(capsys, url, "--quick", "--json", "--no-card")
        assert read_card(url, "faulty", "0.33.0") is None
    told = json.loads(out)
    assert code == 0
    assert (told["url"], told["version"], told["model"]) == (url, "0.33.0", "faulty")
    assert [each["check"] for each in told["findings"]] == ["context", "logprobs", "token ids"]
    assert MeasuredCard.model_validate(told["card"]).tells_logprobs


@pytest.mark.usefixtures("few_checks")
def test_of_several_models_one_is_named(capsys):
    with served(FaultyEngine(models=("one", "two"))) as url:
        code, out, err = doctor(capsys, url)
        assert code == 1
        assert "one, two" in err
        code, out, err = doctor(capsys, url, "--model", "three")
        assert (code, out) == (1, "")
        assert "one, two" in err
        code, out, _ = doctor(capsys, url, "--model", "two", "--quick")
        assert code == 0
        assert "model two" in out


@pytest.mark.usefixtures("few_checks")
def test_a_key_comes_from_a_variable_or_a_file_and_is_told_nowhere(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("THE_KEY", "sesame-open")
    (tmp_path / "key").write_text("sesame-open\n")
    with served(FaultyEngine(key="sesame-open")) as url:
        code, _, err = doctor(capsys, url)
        assert code == 1
        assert "put it into PARROT_ENGINE_API_KEY" in err
        code, _, err = doctor(capsys, url, "--api-key-env", "sesame-not-set")
        assert code == 1
        assert "--api-key-env: the variable that it names is not set or empty" in err
        assert "sesame" not in err
        monkeypatch.setenv("PARROT_ENGINE_API_KEY", "sesame-wrong")
        in_file = ["--api-key-file", str(tmp_path / "key")]
        for where in (["--api-key-env", "THE_KEY"], in_file, []):
            if not where:
                monkeypatch.setenv("PARROT_ENGINE_API_KEY", "sesame-open")
            code, out, err = doctor(capsys, url, "--quick", *where)
            assert code == 0
            assert "sesame" not in out + err
    cards = (tmp_path / "cache" / "cards").iterdir()
    assert not any("sesame" in card.read_text() for card in cards)


@pytest.mark.usefixtures("few_checks")
def test_an_engine_that_cannot_be_asked_is_a_fault_and_its_card_stays(capsys):
    with served(FaultyEngine(broken="error")) as url:
        place = write_card(url, "faulty", "0.33.0", MeasuredCard(sharing="batch", slots=4))
        before = place.read_text()
        code, out, err = doctor(capsys, url, "--quick")
        assert code == 1
        assert "500: out of memory" in out
        assert err == "parrot: error: there is something to mend: chat\n"
        assert place.read_text() == before


def test_what_a_run_cannot_tell_stays_on_the_card(capsys, monkeypatch):
    async def busy(patient: Patient) -> Finding:
        return Finding("siblings", "unknown", "not known")

    chosen = {"siblings": (busy, 1), "logprobs": examination.CHECKS["logprobs"]}
    monkeypatch.setattr(examination, "CHECKS", chosen)
    with served(FaultyEngine(logprobs="hidden")) as url:
        before = MeasuredCard(sharing="slot", tells_logprobs=True)
        place = write_card(url, "faulty", "0.33.0", before)
        assert doctor(capsys, url, "--quick")[0] == 0
        card = read_card(url, "faulty", "0.33.0")
        assert card is not None
        assert (card.sharing, card.tells_logprobs) == ("slot", False)
        monkeypatch.setattr(examination, "CHECKS", {"siblings": (busy, 1)})
        kept = place.read_text()
        assert "kept for serving" not in doctor(capsys, url, "--quick")[2]
        assert place.read_text() == kept


@pytest.mark.parametrize(
    "url",
    [
        "here",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://me:sesame@host",
        "me:sesame@host:8000",
    ],
)
def test_an_address_that_is_none_is_one_line(capsys, url):
    code, out, err = doctor(capsys, url)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "http://host:port" in err or "password" in err
    assert "sesame" not in err


def test_an_engine_that_is_not_there_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    code, out, err = doctor(capsys, f"http://127.0.0.1:{number}")
    assert (code, out) == (1, "")
    assert err.startswith("parrot: error: ")
    assert str(number) in err


def test_an_installation_without_fault_ends_with_0_and_with_one_with_1(capsys, monkeypatch):
    findings = [Finding("port", "warning", "8642 is in use", "use another")]
    monkeypatch.setattr(telling, "look", lambda: findings)
    code, out, err = doctor(capsys)
    assert (code, err) == (0, "")
    assert "8642 is in use" in out
    findings.append(Finding("torch", "fault", "2.1, not >=2.9", "pip install 'torch>=2.9'"))
    code, out, err = doctor(capsys)
    assert code == 1
    assert "pip install 'torch>=2.9'" in out
    assert err == "parrot: error: there is something to mend: torch\n"
    code, out, _ = doctor(capsys, "--json")
    assert code == 1
    assert [each["level"] for each in json.loads(out)["findings"]] == ["warning", "fault"]


def test_who_looks_loads_no_torch():
    assert not loaded_by("parrot_backend.doctor.telling") & (TORCH | WEB)


def test_who_does_not_look_loads_no_checks():
    assert "httpx" not in loaded_by("parrot_backend.doctor.command")
