"""What is read is what Python gives, whether the texts are known or the run brings them."""

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_integrations.planning.values import BreakError
from tests.integrations.planning.reading.drawn import functions
from tests.integrations.planning.reading.neutral import Symbolic, reading
from tests.integrations.planning.reading.written import written

texts = st.text("aAbB -{\n", max_size=6)
inputs = st.fixed_dictionaries(
    {
        "a": texts,
        "b": texts,
        "xs": st.lists(texts, max_size=3),
        "n": st.integers(0, 4),
    }
)


class Outcomes:
    def __init__(self) -> None:
        self.same = self.breaks = 0

    def compare(self, read: Any, called: Any) -> None:
        if read is BREAK:
            self.breaks += 1
            return
        self.same += 1
        assert called is not RAISED
        assert repr(read) == repr(called)


BREAK, RAISED = object(), object()


def read_or_break(read: Any) -> Any:
    try:
        return read()
    except BreakError:
        return BREAK


def called(function: Any, value: Any) -> Any:
    try:
        return function(value)
    except Exception:
        return RAISED


def brought_by_the_run(symbolic: Symbolic, value: Any) -> Any:
    if isinstance(value, list):
        return [symbolic.text(text) for text in value]
    return symbolic.text(value) if isinstance(value, str) else value


def compared(source: str, value: dict[str, Any], known: Outcomes, brought: Outcomes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = written(source)
    expected = called(function, value)
    known.compare(read_or_break(lambda: reading(function, value)), expected)
    symbolic = Symbolic()
    given = {name: brought_by_the_run(symbolic, part) for name, part in value.items()}
    found = read_or_break(lambda: symbolic.read(function, given))
    if found is not BREAK and expected is not RAISED:
        found = symbolic.rendered(found)
        brought.compare(found, expected)


def test_reading_is_calling() -> None:
    known, brought = Outcomes(), Outcomes()

    @settings(
        max_examples=600,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(functions(), inputs)
    def compare(source: str, value: dict[str, Any]) -> None:
        compared(source, value, known, brought)

    compare()
    assert known.same > 3 * known.breaks
    assert brought.same > brought.breaks / 2


def test_what_python_refuses_is_not_read() -> None:
    for source in ("f = lambda x: x['zz']", "f = lambda x: x['a'] + x['n']"):
        with pytest.raises(BreakError, match=r"line 1: `.*` raises (KeyError|TypeError)|operation"):
            reading(written(source), {"a": "b", "n": 1})
