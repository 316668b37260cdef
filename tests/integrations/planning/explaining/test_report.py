"""The forms of a plan: a page that is safe and whole, JSON with stable keys, a text for notebooks."""

import json
import pickle
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from parrot_backend.wire.views import GroupView, SessionView
from parrot_integrations.planning.explaining.drawing import drawing
from parrot_integrations.planning.explaining.html import html
from parrot_integrations.planning.explaining.overview import overview
from parrot_integrations.planning.explaining.report import Explanation, report
from parrot_integrations.planning.explaining.svg import svg
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Break, Text
from tests.integrations.planning.plans import ask, graph, map_reduce, ran, refine

EVIL = '<script>alert("it\'s & so")</script>'


def evil() -> Plan:
    plan = Plan()
    text = ask(plan, Text((EVIL,)), plan.input(EVIL, EVIL))
    ask(plan, plan.join([text, text], EVIL))
    plan.stop(Break(EVIL, EVIL, EVIL, EVIL, EVIL, reads=("answer-1",)))
    plan.note(EVIL, EVIL)
    return plan


def test_everything_in_a_page_is_escaped_and_well_formed() -> None:
    page = html(overview(evil()), analysis=EVIL)
    assert "<script" not in page
    root = ElementTree.fromstring(page)
    assert len([text for text in root.itertext() if EVIL in text]) >= 8


def test_a_page_fetches_nothing() -> None:
    page = html(overview(map_reduce()))
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)""", page) == []
    assert set(re.findall(r"https?://[^\"<]+", page)) == {"http://www.w3.org/2000/svg"}


def boxes(picture: str) -> dict[str, tuple[float, float, float, float]]:
    """By the first line in it, each box's x, y, width and height."""
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    return {
        "".join(box.find(f"{space}text").itertext()): tuple(
            float(box.attrib[name]) for name in ("x", "y", "width", "height")
        )
        for box in root.findall(f"{space}svg")
    }


@pytest.mark.parametrize("plan", [map_reduce(3), refine(5), evil()], ids=["map", "refine", "evil"])
def test_no_box_lies_on_another_and_each_is_below_what_it_reads(plan: Plan) -> None:
    drawn = drawing(overview(plan))
    placed = list(boxes(svg(drawn)).values())
    assert len(placed) == len(drawn.nodes)
    for i, (x, y, width, height) in enumerate(placed):
        for other_x, other_y, other_width, other_height in placed[i + 1 :]:
            beside = x + width <= other_x or other_x + other_width <= x
            assert beside or y + height <= other_y or other_y + other_height <= y


def test_what_reads_is_below_what_is_read() -> None:
    heights = {
        name: y for name, (_, y, _, _) in boxes(svg(drawing(overview(map_reduce(3))))).items()
    }
    part, first, joined, last = (
        next(y for name, y in heights.items() if start in name)
        for start in ("part = one", "call-1 … call-3", "join by", "call-4")
    )
    assert part < first < joined < last


def test_groups_that_read_each_other_are_drawn() -> None:
    plan = Plan()
    text = plan.input("topic", "rain")
    for _ in range(4):
        text = ask(plan, Text(("Draft ",)), text)
        text = ask(plan, Text(("Criticise ",)), text)
    drawn = drawing(overview(plan))
    assert len(boxes(svg(drawn))) == len(drawn.nodes) == 4


def test_a_plan_of_a_thousand_prompts_is_drawn() -> None:
    plan = Plan()
    for i in range(1000):
        ask(plan, Text((f"Prompt number {i} ",)), plan.input(f"x{i}", "y"))
    assert len(drawing(overview(plan)).nodes) == 2000
    assert svg(drawing(overview(plan))).count("<rect") == 2000


def test_a_break_is_behind_what_it_reads_and_before_the_next() -> None:
    plan = Plan()
    ask(plan, Text(("a",)))
    plan.stop(Break("one", "stops", reads=("answer-1",)))
    plan.stop(Break("two", "stops", reads=("break-1",)))
    assert drawing(overview(plan)).edges == [("n1", "n2"), ("n2", "n3")]


class Ran:
    """A session that is over, as `report` asks it."""

    def __init__(self) -> None:
        self.view = lambda: SessionView(id="s", planned=3, claimed=3, dependent=1, ahead=2)
        calls = [ran(f"call-{n}", 0, 2, asked=1, group="call-3.inputs") for n in (1, 2)]
        calls.append(ran("call-3", 2, 3, asked=2.5, dependent=True))
        group = GroupView(name="call-3.inputs", calls=["call-1", "call-2"])
        self.graph = lambda: graph(*calls).model_copy(update={"groups": [group]})


def keys(value: Any) -> Any:
    """The keys of an object, and those of the first item of each list in it."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    return [keys(item) for item in value[:1]] if isinstance(value, list) else None


def test_the_keys_of_the_json_are_these() -> None:
    plan = map_reduce()
    plan.stop(Break("lambda", "is opaque", reads=("answer-3",)))
    plan.note("here", "so it is")
    told = json.loads(report(plan, format="json", ran=Ran()))
    names = {
        "calls": "id prompt output objective why group concurrency path held shares_with "
        "shared_characters",
        "variables": "name value",
        "transforms": "description inputs output",
        "breaks": "step where location reason remedy reads output",
        "groups": "name calls",
        "notes": "where text",
    }
    for name, fields in names.items():
        assert list(told[name][0]) == fields.split(), name
    assert list(told) == [
        *("objective", "calls", "variables", "transforms", "breaks", "groups", "concurrency"),
        *("notes", "run", "comparison"),
    ]
    run = (
        "planned claimed dependent ahead unplanned seconds saved_seconds critical_path "
        "warm_tokens wasted calls"
    )
    assert list(told["run"]) == run.split()
    assert (
        " ".join(told["run"]["calls"][0])
        == "id fate queued dispatched asked started finished saved_seconds prompt_tokens "
        "shared_tokens predicted_tokens answer_tokens"
    )
    assert told["run"]["critical_path"] == ["call-2", "call-3"]
    assert told["run"]["saved_seconds"] == 1.5
    assert told["groups"] == [{"name": "call-3.inputs", "calls": ["call-1", "call-2"]}]


def test_the_json_of_what_did_not_run_has_the_same_keys() -> None:
    told = json.loads(report(map_reduce(), format="json"))
    assert (told["run"], told["comparison"]) == (None, None)
    assert told["calls"][0]["prompt"] == "[user] Sum: {part}"


def test_a_text_is_a_string_that_a_notebook_shows_as_a_page() -> None:
    told = report(map_reduce())
    assert isinstance(told, Explanation)
    shown = told._repr_mimebundle_()
    assert shown["text/plain"] == told == f"{told}"
    assert shown["text/html"] == report(map_reduce(), format="html")
    assert "<svg" in shown["text/html"]
    assert pickle.loads(pickle.dumps(told)).html == told.html


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'text', 'html', 'json', 'mermaid', not 'dot'"):
        report(Plan(), format="dot")
