"""A plan in words: what is alike is told once, and of each objective why."""

import time
from dataclasses import replace

from parrot_integrations.planning.explaining.explain import explain
from parrot_integrations.planning.explaining.overview import overview
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Break, Text, Unknown
from tests.integrations.planning.plans import ask, map_reduce, refine


def lines(plan: Plan, objective: str = "latency") -> list[str]:
    return explain(overview(plan, objective)).splitlines()


def below(told: list[str], start: str) -> str:
    """The line under the one that begins so."""
    (place,) = [i for i, line in enumerate(told) if line.strip().startswith(start)]
    return told[place + 1].strip()


def test_two_hundred_elements_fit_a_screen() -> None:
    told = lines(map_reduce(200))
    assert "  call-1 … call-200 (200 calls): [user] Sum: {part.*} -> {answer-*}" in told
    assert any(line.startswith("  part … part.200 (200 values) = one, …, 199") for line in told)
    assert len(told) < 20


def test_why_siblings_are_throughput_is_said() -> None:
    told = lines(map_reduce(40))
    assert below(told, "call-1 … call-40").startswith(
        "throughput: one of 40 siblings that feed call-41; only the last to end matters; "
        "39 of them share 5 characters with an earlier call"
    )
    assert below(told, "call-41") == "latency: the last call, and its answer is waited for"


def test_siblings_of_an_earlier_stage_and_of_the_end_are_told_apart() -> None:
    plan = Plan()
    texts = [ask(plan, plan.input("x", str(i))) for i in range(3)]
    better = [ask(plan, Text(("Better ",)), text) for text in texts]
    ask(plan, plan.join(better, ""))
    assert "3 siblings that feed call-7, 2 stages on" in below(lines(plan), "call-1 … call-3")
    alone = Plan()
    for i in range(2):
        ask(alone, alone.input("x", str(i)))
    assert "one of 2 siblings that are wanted together" in below(lines(alone), "call-1, call-2")


def test_a_call_that_was_held_back_is_no_sibling_of_what_is_behind_its_break() -> None:
    plan = Plan()
    ask(plan, Text(("Which questions?",)))
    assert plan.take() is None
    for text in ("One?", "Two?"):
        ask(plan, Text((text,)))
    submitted = plan.take()
    assert [output.group for output in submitted.outputs] == ["outputs-call-2"] * 2
    told = lines(plan)
    assert below(told, "call-1:").startswith("latency: the last call, and its answer is waited for")
    for name in ("call-2:", "call-3:"):
        assert "one of 2 siblings that are wanted together" in below(told, name)


def test_a_throughput_that_was_asked_for_is_told_so() -> None:
    plan = Plan()
    ask(plan, Text(("hi",)))
    assert below(lines(plan, "throughput"), "call-1").startswith("throughput: as wanted")


def test_steps_of_a_refine_chain_are_one_line_with_their_way() -> None:
    told = lines(refine(12))
    assert below(told, "call-1:") == "latency: 13 calls to the end, which is waited for"
    assert "latency: 12 … 1 calls to the end" in below(told, "call-2 … call-13 (12 calls)")


def test_calls_with_other_parameters_or_texts_are_not_alike() -> None:
    plan = Plan()
    for parameters in ({}, {"temperature": 0.5}, {"temperature": 0.5}):
        ask(plan, Text(("Say ",)), plan.input("x", "1"), **parameters)
    ask(plan, Text(("Tell ",)), plan.input("x", "1"))
    calls = [line for line in lines(plan) if line.startswith("  call-")]
    assert [line.split(":")[0].strip() for line in calls] == [
        "call-1",
        "call-2, call-3 (2 calls)",
        "call-4",
    ]


def test_transforms_that_do_the_same_are_one_line() -> None:
    plan = Plan()
    for i in range(30):
        plan.strip(ask(plan, plan.input("x", str(i))))
    assert "  strip: {answer-*} -> {stripped-*} (30 times)" in lines(plan)


def test_a_break_says_where_and_what_to_do_and_is_told_once_for_all_elements() -> None:
    plan = Plan()
    for _ in range(200):
        plan.stop(Break("lambda", "is opaque", "Do this.", "app.py:41", "step 3 of 5"))
    plan.stop(Break("lambda", "is opaque", "Do this.", "app.py:42", "step 4 of 5"))
    told = lines(plan)
    assert "201 graph breaks" in told[0]
    assert told[-4:] == [
        "  step 3 of 5, lambda at app.py:41: is opaque (200 times).",
        "      Do this.",
        "  step 4 of 5, lambda at app.py:42: is opaque.",
        "      Do this.",
    ]


def test_a_stop_with_no_call_behind_it_is_no_break() -> None:
    plan, end, middle, after = Plan(), Unknown(), Unknown(), Unknown()
    plan.stop(Break("parser", "is opaque"), end)
    assert plan.breaks == []
    plan.stop(Break("lambda", "is opaque"), middle)
    middle.behind.append(after)
    after.keeps.append(lambda: False)
    assert plan.breaks == []
    after.keeps.append(lambda: True)
    assert [stop.where for stop in plan.breaks] == ["lambda"]


def test_max_concurrency_is_shown() -> None:
    plan = map_reduce(4)
    seen = replace(overview(plan), concurrency={"run:0": 2, "run:1": 2})
    for number, call in enumerate(plan.calls[:4]):
        call.concurrency = [f"run:{number % 2}"]
    assert "; at most 2 at once in each of 2 groups; " in explain(seen)
    for call in plan.calls[:4]:
        call.concurrency = ["run:0"]
    assert "; at most 2 at once; " in explain(seen)


def test_notes_are_told() -> None:
    plan = Plan()
    plan.note("lambda at app.py:3", "read from its source")
    assert lines(plan)[-2:] == ["Notes", "  lambda at app.py:3: read from its source"]


def seconds(plan: Plan) -> float:
    start = time.process_time()
    explain(overview(plan))
    return time.process_time() - start


def test_a_thousand_calls_are_explained_at_once_and_time_grows_with_their_number() -> None:
    long = "Read this very carefully. " * 400
    plans = {}
    for size in (250, 1000):
        plans[size] = plan = Plan()
        for i in range(size):
            ask(plan, Text((long,)), plan.input("text", f"{i} {i}"))
    seconds(plans[250])
    few, many = (min(seconds(plans[size]) for _ in range(3)) for size in (250, 1000))
    assert many < 1.5
    assert many < 10 * few
