"""What vLLM writes, in our log and in errors."""

import logging

import pytest

from parrot_backend.endpoints.vllm.log_lines import LogLines

HEAD = "(EngineCore pid=7) {} 11-27 18:10:28 [core.py:1] {}"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> LogLines:
    caplog.set_level(logging.DEBUG, "parrot_backend")
    return LogLines("vLLM (m)")


def test_levels_are_those_of_the_lines_once_it_has_started(lines, caplog):
    lines.take(HEAD.format("ERROR", "before"))
    lines.tell()
    for line in (
        HEAD.format("INFO", "usual"),
        HEAD.format("WARNING", "odd"),
        "ERROR 11-27 18:10:28 [core.py:1] bad",
        "no head at all",
        "",
    ):
        lines.take(line)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "vLLM (m): before"),
        ("DEBUG", "vLLM (m): usual"),
        ("WARNING", "vLLM (m): odd"),
        ("ERROR", "vLLM (m): bad"),
        ("DEBUG", "vLLM (m): no head at all"),
    ]


FAILED = "RuntimeError: Engine core initialization failed. See above."
MEMORY = "torch.OutOfMemoryError: no memory"
UNKNOWN = "vllm serve: error: unrecognized arguments: --x"


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ([], ""),
        (["only this"], "only this"),
        (["ValueError: first", MEMORY, "bye"], MEMORY),
        (["ValueError: the cause", FAILED], "ValueError: the cause"),
        ([FAILED], FAILED),
        (["usage: vllm", UNKNOWN], UNKNOWN),
        ([HEAD.format("ERROR", "KeyError: 'x'"), HEAD.format("INFO", "bye")], "KeyError: 'x'"),
    ],
)
def test_the_last_error_of_its_own_is_told(lines, told, error):
    for line in told:
        lines.take(line)
    assert lines.last_error == error
