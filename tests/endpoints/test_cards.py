"""Cards of engines: what was measured is read again, of the same engine only."""

import pytest

from parrot_backend.endpoints.cards import MeasuredCard, read_card, write_card

URL = "http://127.0.0.1:8000"
CARD = MeasuredCard(priority_order="lower", obeys=frozenset({"regex"}), sharing="batch", slots=4)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))


def test_a_card_is_read_as_it_was_written():
    write_card(URL, "model", "0.33.0", CARD)
    assert read_card(URL, "model", "0.33.0") == CARD


@pytest.mark.parametrize(
    "same", [f"{URL}/", f"{URL}/v1", f"{URL}/v1/", "HTTP://me:word@127.0.0.1:8000"]
)
def test_an_address_may_be_written_in_several_ways(same):
    write_card(URL, "model", None, CARD)
    assert read_card(same, "model", None) == CARD


@pytest.mark.parametrize(
    "other", [("http://127.0.0.1:8001", "model", "1"), (URL, "other", "1"), (URL, "model", "2")]
)
def test_another_engine_model_or_version_has_no_card(other):
    write_card(URL, "model", "1", CARD)
    assert read_card(*other) is None


def test_a_password_is_not_kept():
    place = write_card("http://me:secret@127.0.0.1:8000/?key=secret", "model", "1", CARD)
    assert "secret" not in place.read_text() + place.name


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1}'])
def test_a_file_that_is_no_card_is_none(content):
    write_card(URL, "model", "1", CARD).write_text(content)
    assert read_card(URL, "model", "1") is None


def test_a_field_of_a_later_version_is_left_out():
    place = write_card(URL, "model", "1", CARD)
    place.write_text(place.read_text().replace('"slots"', '"later": 1, "slots"'))
    assert read_card(URL, "model", "1") == CARD


def test_a_card_changes_a_dialect_in_what_is_known():
    assert CARD.changes("structured_outputs") == {
        "priority": "lower_first",
        "structured": "none",
        "sharing": "batch",
        "slots": 4,
    }
    assert MeasuredCard().changes("structured_outputs") == {}
    repeats = MeasuredCard(batching_changes_tokens=False, priority_order="refused")
    assert repeats.changes("gbnf") == {"repeatable": True, "priority": "none"}


@pytest.mark.parametrize(
    ("obeyed", "dialect", "changed"),
    [
        (("json_schema", "regex", "lark"), "response_format", "structured_outputs"),
        (("json_schema",), "structured_outputs", "response_format"),
        (("json_schema",), "gbnf", None),
        ((), "response_format", "none"),
        (("json_schema",), "none", None),
    ],
)
def test_the_form_of_answers_is_asked_for_as_it_is_obeyed(obeyed, dialect, changed):
    changes = MeasuredCard(obeys=frozenset(obeyed)).changes(dialect)
    assert changes.get("structured") == changed
    assert changes.get("styles", True) == (changed != "response_format")
