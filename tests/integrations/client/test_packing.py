from parrot_backend.program.render import render_call
from parrot_backend.wire.protocol import CallScope, Program
from parrot_integrations.client import operations
from parrot_integrations.client.packing import packed
from tests.programs import call

LONG = "You are the reader of a very long document, of which this is one part. " * 40


def test_what_calls_share_travels_once() -> None:
    calls = [call(f"call-{n}", f"{LONG}{{text-{n}}}{LONG}") for n in range(1000)]
    program = Program(variables={f"text-{n}": str(n) for n in range(1000)}, calls=calls)
    operation = operations.open_session(program, CallScope())
    assert operation.content is not None
    assert operation.content.count(LONG) == 1
    assert len(operation.content) < 300_000
    assert packed(program).texts == [LONG]
    values = {name: value or "" for name, value in program.variables.items()}
    small = packed(program)
    for whole, part in zip(calls, small.calls, strict=True):
        assert render_call(part, values, small.texts) == render_call(whole, values, [])


def test_short_texts_and_those_of_one_call_stay_where_they_are() -> None:
    program = Program(
        calls=[call("a", f"{LONG}{{x}}"), call("b", "short {x}"), call("c", "short {x}")]
    )
    assert packed(program) is program
    assert program.calls[0].messages[0].content[0].text == LONG
