"""Each check finds the fault that it is for, in an engine that has this fault and no other."""

import random
from contextlib import aclosing, asynccontextmanager

import pytest
from httpx import AsyncClient

from parrot_backend.doctor.engine import (
    caching,
    closing,
    grammars,
    load,
    priority,
    siblings,
    tokens,
)
from parrot_backend.doctor.engine.examination import CHECKS, card_of, examine
from parrot_backend.doctor.engine.patient import Patient
from parrot_backend.doctor.engine.priority import CERTAIN, Order
from parrot_backend.doctor.findings import Finding
from parrot_backend.endpoints.cards import MeasuredCard
from parrot_backend.endpoints.upstream.address import Address
from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.dialect import VLLM
from tests.doctor.faulty import FaultyEngine
from tests.doctor.virtual import InProcess, run


@pytest.fixture(autouse=True)
def _same_orders():
    """Waves are sent in random orders, which may look like an order once in a while."""
    random.seed(14)


@asynccontextmanager
async def patient_of(engine, **options):
    async with aclosing(Client(Address.parse("http://engine"), None)) as client:
        await client.http.aclose()
        client.http = AsyncClient(transport=InProcess(engine.app()))
        yield Patient(client, "faulty", VLLM, engine.context, quick=True, **options)


def found(check, **faults):
    """What a check finds in an engine with faults."""
    engine = FaultyEngine(**faults)

    async def look():
        async with patient_of(engine) as patient:
            patient.tokens_per_second = 1 / max(engine.seconds_of_prompt_token, 1e-9)
            patient.tells_cached_tokens = engine.cached_tokens == "told"
            return await check(patient)

    return run(look())


@pytest.mark.parametrize(
    ("order", "level", "said"),
    [
        ("lower", "ok", "lower first"),
        ("higher", "ok", "higher first"),
        ("ignored", "missing", "not obeyed"),
        ("refused", "missing", "refused (400: priority: not enabled)"),
    ],
)
def test_which_priority_goes_first(order, level, said):
    finding = found(priority.check, priority=order)
    assert finding.found.startswith(said)
    assert (finding.level, finding.facts["priority_order"]) == (level, order)


def test_an_engine_that_reads_everything_at_once_has_no_order_to_see():
    finding = found(priority.check, priority="ignored", seconds_of_prompt_token=0.0)
    assert (finding.level, finding.facts) == ("unknown", {})
    assert "takes all that was sent at once" in finding.found


def test_two_waves_in_order_are_certain_and_one_is_not():
    order = Order()
    order.add([1, 2, 3, 4], [5, 6, 7, 8])
    assert 0 < order.deviations < CERTAIN
    order.add([1, 2, 3, 4], [5, 6, 7, 8])
    assert order.deviations > CERTAIN
    assert order.lower_first == order.pairs == 32


def test_waves_in_opposite_orders_say_nothing():
    order = Order()
    order.add([1, 2], [3, 4])
    order.add([3, 4], [1, 2])
    assert order.deviations == 0


@pytest.mark.parametrize(
    ("faults", "level", "fact"),
    [
        ({}, "ok", True),
        ({"salt": "ignored"}, "missing", False),
        ({"salt": "refused"}, "missing", False),
        ({"cached_tokens": "hidden"}, "ok", True),
        ({"cached_tokens": "hidden", "salt": "ignored"}, "missing", False),
        ({"sharing": "none"}, "unknown", None),
    ],
)
def test_whether_a_salt_isolates(faults, level, fact):
    finding = found(caching.check_salt, **faults)
    assert (finding.level, finding.facts.get("salt_isolates")) == (level, fact), finding


@pytest.mark.parametrize(
    ("faults", "said", "fact"),
    [
        ({}, "told", True),
        ({"cached_tokens": "hidden"}, "hidden: the second answer came sooner", False),
        ({"cached_tokens": "hidden", "sharing": "none"}, "none told, and none to be seen", False),
    ],
)
def test_whether_cached_tokens_are_told(faults, said, fact):
    finding = found(caching.check_told, **faults)
    assert finding.found.startswith(said)
    assert finding.facts == {"tells_cached_tokens": fact}


@pytest.mark.parametrize("cached_tokens", ["told", "hidden"])
@pytest.mark.parametrize(
    ("sharing", "level"),
    [("batch", "ok"), ("computed", "missing"), ("slot", "missing"), ("none", "missing")],
)
def test_what_siblings_share(sharing, level, cached_tokens):
    faults = {"sharing": sharing, "slots": 4 if sharing == "slot" else 16}
    finding = found(siblings.check, cached_tokens=cached_tokens, **faults)
    assert finding.level == level
    assert finding.facts == {"sharing": None if sharing == "none" else sharing}, finding


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize(("how", "level"), [("frees", "ok"), ("ignored", "missing")])
def test_whether_a_closed_connection_frees(how, level, counts):
    finding = found(closing.check, closing=how, counts=counts, seconds_of_token=0.01)
    assert finding.level == level
    assert finding.found.startswith("freed" if how == "frees" else "go on"), finding


def test_an_engine_that_is_slow_may_free_late():
    """Its readers' leaving takes it as long as a few tokens."""
    slow = {"seconds_of_token": 0.2, "seconds_to_free": 2.5}
    assert found(closing.check, **slow).found.startswith("freed: from 8 running to 0 in 2.5")
    quick = {"seconds_of_token": 0.01, "seconds_to_free": 2.5}
    assert found(closing.check, **quick).level == "missing"


@pytest.mark.parametrize(
    ("ids", "facts"),
    [
        ("told", (True, True)),
        ("taken", (True, False)),
        ("misread", (False, False)),
        ("refused", (False, False)),
    ],
)
def test_whether_token_ids_are_taken_and_told(ids, facts):
    finding = found(tokens.check_token_ids, token_ids=ids)
    assert (finding.facts["takes_token_ids"], finding.facts["tells_token_ids"]) == facts
    assert (finding.level == "ok") == all(facts)


@pytest.mark.parametrize("obeys", [(), ("regex",), ("json_schema", "lark"), tuple(grammars.KINDS)])
def test_which_grammars_are_obeyed(obeys):
    finding = found(grammars.check, obeys=obeys)
    assert finding.facts["obeys"] == set(obeys)
    assert finding.level == ("ok" if len(obeys) == 3 else "missing")


def test_grammars_that_are_refused_are_not_obeyed():
    finding = found(grammars.check, unknown_fields="refused")
    assert finding.facts["obeys"] == {"json_schema"}
    assert "regex refused (400: structured_outputs: unknown field)" in finding.found


@pytest.mark.parametrize(
    ("logprobs", "level", "said"),
    [
        ("told", "ok", "told of the chosen token"),
        ("hidden", "missing", "not told"),
        ("wrong", "missing", "told, but they are none"),
    ],
)
def test_whether_logprobs_are_told(logprobs, level, said):
    finding = found(tokens.check_logprobs, logprobs=logprobs)
    assert finding.found.startswith(said)
    assert (finding.level, finding.facts["tells_logprobs"]) == (level, logprobs == "told")


@pytest.mark.parametrize(
    ("batching", "said"),
    [
        ("harmless", "the same text"),
        ("changes", "2 of 2 answers change beside others"),
        ("random", "even alone only 0 of 2 answers are the same"),
    ],
)
def test_whether_a_batch_changes_greedy_answers(batching, said):
    finding = found(tokens.check_batching, batching=batching)
    assert finding.found.startswith(said)
    assert finding.facts["batching_changes_tokens"] == (batching != "harmless")


def test_how_many_slots_there_are():
    finding = found(load.check_slots, slots=2, seconds_of_token=0.004)
    assert finding.facts["slots"] == 2
    assert finding.found.startswith("2 at once")


def test_slots_that_are_never_full_are_not_guessed():
    finding = found(
        load.check_slots, slots=500, seconds_of_prompt_token=0.0, seconds_of_token=0.002
    )
    assert finding.facts == {"slots": None}


@pytest.mark.parametrize(("context", "length"), [(2048, 2048), (None, 4096)])
def test_how_long_the_context_is(context, length):
    assert found(load.check_context, context=context).facts == {"context_length": length}


def examined(**faults):
    async def look():
        async with patient_of(FaultyEngine(**faults), patience=30.0) as patient:
            return await examine(patient)

    return run(look())


@pytest.mark.parametrize(
    ("broken", "said"),
    [("error", "500: out of memory"), ("garbage", "can't be understood"), ("hang", "ReadTimeout")],
)
def test_an_engine_that_can_not_be_asked_is_one_finding(broken, said):
    (finding,) = examined(broken=broken)
    assert finding.level == "fault"
    assert said in finding.found
    assert finding.facts == {}


def test_what_could_not_be_told_is_as_it_was_before_and_what_there_is_not_is_gone():
    before = MeasuredCard(priority_order="lower", sharing="batch", slots=4, tells_logprobs=True)
    findings = [
        Finding("priority", "unknown", "not certain"),
        Finding("siblings", "missing", "share nothing", "", {"sharing": None}),
        Finding("slots", "ok", "8 at once", "", {"slots": 8}),
    ]
    card = card_of(findings, before)
    assert (card.priority_order, card.sharing, card.slots) == ("lower", None, 8)
    assert card.tells_logprobs
    assert card_of(findings).priority_order is None


def test_all_checks_together_make_a_card():
    findings = examined()
    assert [each.check for each in findings] == list(CHECKS)
    card = card_of(findings)
    assert card.priority_order == "lower"
    assert card.sharing == "batch"
    assert card.obeys == {"json_schema", "regex", "lark"}
    assert card.salt_isolates
    assert card.context_length == 2048
