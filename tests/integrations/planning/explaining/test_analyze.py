"""A run beside its plan, over graphs that are written by hand."""

from parrot_backend.wire.views import CallView, SessionView
from parrot_integrations.planning.explaining.analyze import analyze
from parrot_integrations.planning.explaining.comparing import ORDER, Timed, compared, gained
from parrot_integrations.planning.explaining.explain import headline
from parrot_integrations.planning.explaining.overview import overview
from parrot_integrations.planning.explaining.run import Run
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Text
from tests.integrations.planning.plans import ask, graph, map_reduce, ran, refine


def run_of(plan: Plan, *calls: CallView, **values: str) -> Run:
    view = graph(*calls, **values)
    return Run(overview(plan), view)


def told(run: Run, **counts: int) -> str:
    return analyze(run, SessionView(id="s", **counts))


def row(text: str, name: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
    return found.split()


def test_predicted_tokens_are_the_shared_part_of_the_prompt() -> None:
    """'Sum: ' are 5 of the 10 characters of the second prompt, so 6 of its 12 tokens."""
    calls = [
        ran("call-1", 0, 1, prompt_tokens=11),
        ran("call-2", 0, 1, prompt_tokens=12, cached_tokens=7, claimed=False, completion_tokens=3),
        ran("call-3", 1, 2, state="cancelled", claimed=False),
    ]
    run = run_of(map_reduce(), *calls, **{"part": "one", "part.2": "12345"})
    text = told(run, planned=3, claimed=1)
    assert run.foreseen == {"call-1": 0, "call-2": 6, "call-3": 0}
    assert row(text, "in all")[-4:] == ["23", "7", "6", "3"]
    assert "2 calls, up to 5 prompt and 3 answer tokens" in text
    assert "3 of 3 planned calls submitted, 1 of them claimed" in text


def test_dependent_calls_and_calls_run_ahead_are_told_apart() -> None:
    calls = [
        ran("call-1", 0, 1, asked=0.001),
        ran("call-2", 0, 1, asked=0.5),
        ran("call-3", 1, 2, asked=1.5, dependent=True),
        ran("request/1", 2, 3),
    ]
    text = told(run_of(map_reduce(), *calls), planned=3, claimed=3, dependent=1, ahead=1)
    assert "3 of them claimed: 1 dependent (dispatched by the backend" in text
    assert ", 1 run ahead; 0 not foreseen" in text
    assert text.count("1 claimed, 1 claimed, ahead\n") == 1
    assert row(text, "call-3")[-2:] == ["claimed,", "dependent"]
    assert row(text, "request/1")[-2:] == ["not", "foreseen"]


def test_what_the_plan_saved_is_that_of_the_critical_path_only() -> None:
    calls = [
        ran("call-1", 0, 1, asked=0.9),
        ran("call-2", 0, 3, asked=0.25),
        ran("call-3", 3, 4, asked=3.5, dependent=True),
    ]
    run = run_of(map_reduce(), *calls)
    assert [view.id for view in run.path] == ["call-2", "call-3"]
    assert (run.seconds, run.saved_seconds) == (4.0, 0.75)
    assert "Saved on it: 0.750 s (of each call's run, what passed before" in told(run)


def side_by_side(count: int, seconds: float = 2.0) -> Run:
    """Calls that ran at once and of which the client asked for one after another."""
    plan = Plan()
    for n in range(count):
        ask(plan, Text((f"Say {n}.",)))
    calls = [ran(f"call-{n + 1}", 0, seconds, asked=seconds + n / 8) for n in range(1, count)]
    return run_of(plan, ran("call-1", 0, seconds, asked=0.0), *calls)


def test_what_ran_at_the_same_time_is_saved_once_and_never_more_than_all_took() -> None:
    run = side_by_side(6)
    assert run.saved_seconds == 2.0 <= run.seconds


def test_siblings_that_ran_side_by_side_are_no_chain() -> None:
    run = side_by_side(6)
    assert len(run.path) == 1
    assert sum((v.finished or 0) - (v.queued or 0) for v in run.path) <= run.seconds


def test_of_siblings_the_last_to_end_is_on_the_path_whichever_was_asked_for_last() -> None:
    slow, fast = ran("call-1", 0, 5, asked=0), ran("call-2", 0, 2, asked=5.1)
    last = ran("call-3", 5, 6, asked=5.2, dependent=True)
    run = run_of(map_reduce(), slow, fast, last)
    assert [view.id for view in run.path] == ["call-1", "call-3"]
    assert "call-1 (5.000 s) -> call-3 (1.000 s): 6.000 s with what the client did" in told(run)


def test_behind_a_break_a_call_is_chained_to_what_had_ended_when_it_was_queued() -> None:
    """The model says two questions, which are asked at once; of the answers another call is made."""
    plan = Plan()
    for text in ("Which?", "One?", "Two?", "All?"):
        ask(plan, Text((text,)))
    calls = [
        ran("request/1", 0, 1),
        ran("call-2", 1.25, 3, asked=1.25),
        ran("call-3", 1.25, 2, asked=3.0),
        ran("request/2", 3.5, 4),
    ]
    run = run_of(plan, *calls)
    assert [view.id for view in run.path] == ["request/1", "call-2", "request/2"]


def test_the_words_for_what_is_planned_and_what_was_submitted_agree() -> None:
    """The heading counts the calls of the plan, the run those of them that it submitted."""
    run = run_of(map_reduce(3), *(ran(f"call-{n}", 0, 1) for n in (1, 2, 3)))
    assert headline(run.seen).startswith("4 planned calls, ")
    assert told(run, planned=3, claimed=3).startswith("3 of 4 planned calls submitted, 3 of them")


def test_the_cache_was_warm_where_the_first_call_found_something() -> None:
    """What later calls share with it, the run itself explains."""
    first, second = (
        ran(f"call-{n}", 0, 1, started=float(n), prompt_tokens=200, cached_tokens=cached)
        for n, cached in ((1, 120), (2, 130))
    )
    values = {"part": "one", "part.2": "two"}
    run = run_of(map_reduce(), first, second, **values)
    assert run.warm_tokens == 120
    assert "warm from earlier runs: 120 of the 250 shared tokens" in told(run)
    cold = first.model_copy(update={"cached_tokens": 0})
    run = run_of(map_reduce(), cold, second, **values)
    assert run.warm_tokens == 0
    assert "130 tokens shared, no more than the run itself explains" in told(run)


def test_the_cache_was_warm_where_a_call_shares_more_than_the_plan_can_explain() -> None:
    calls = [
        ran("call-1", 0, 1, started=1.0, prompt_tokens=50),
        ran("call-2", 0, 1, started=2.0, prompt_tokens=1000, cached_tokens=900),
    ]
    run = run_of(map_reduce(), *calls, **{"part": "one", "part.2": "x" * 995})
    assert run.foreseen["call-2"] == 5
    assert 800 < run.warm_tokens < 900


def test_calls_that_are_alike_are_one_row_and_a_long_path_is_cut() -> None:
    steps = 300
    calls = [
        ran(f"call-{n}", n, n + 1, prompt_tokens=10, dependent=True) for n in range(1, steps + 2)
    ]
    text = told(run_of(refine(steps), *calls))
    assert row(text, f"call-2 … call-{steps + 1}")[-6:-4] == ["3000", "0"]
    assert f"-> … {steps + 1 - 6} calls … -> " in text
    assert len(text.splitlines()) < 16


def timed(*, submitted: bool) -> list[Timed]:
    seconds = zip(ORDER, (9.0, 5.0, 1.5, 2.0), strict=True)
    return [Timed(way, s, submitted and way == "planned") for way, s in seconds]


def test_the_gain_is_against_the_native_run_behind() -> None:
    runs = timed(submitted=True)
    assert gained(runs) == 0.5
    lines = compared(runs).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["planned", "native"] * 2
    assert lines[-1].strip() == (
        "the plan gained 0.500 s (25 %) in the last pair, where the native run came second"
    )


def test_no_gain_is_told_where_nothing_was_submitted() -> None:
    runs = timed(submitted=False)
    assert gained(runs) is None
    assert compared(runs).splitlines()[-1].strip() == (
        "the plan had nothing to submit: all are the same run, and what differs is chance"
    )
