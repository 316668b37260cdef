"""Workflows: the steps that a fan-out runs side by side are siblings, and a run is a thread."""

import asyncio
import gc
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.seen import Opened, members, sizes
from tests.servers import serving


@pytest.fixture(scope="module")
def llm() -> Iterator[Parrot]:
    with serving(ScriptedEngine()) as url:
        yield Parrot(base_url=url)


@pytest.fixture
def opened(llm: Parrot) -> Opened:
    return Opened(llm)


_LATER = int(version("llama-index-workflows").split(".")[0]) >= 2


class Part(Event):
    number: int


class Said(Event):
    text: str


class MapReduce(Workflow):
    """The framework's own example of a fan-out: a step for each part, then one for all."""

    def __init__(self, llm: Parrot, parts: int = 6) -> None:
        super().__init__(timeout=60)
        self.llm, self.parts = llm, parts

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Part | None:
        for number in range(self.parts):
            ctx.send_event(Part(number=number))
        return None

    @step(num_workers=6)
    async def work(self, ev: Part) -> Said:
        return Said(text=(await self.llm.acomplete(f"part {ev.number}")).text)

    @step
    async def join(self, ctx: Context, ev: Said) -> StopEvent | None:
        said = ctx.collect_events(ev, [Said] * self.parts)
        if said is None:
            return None
        texts = sorted(each.text for each in said)
        return StopEvent(result=(await self.llm.acomplete("all of " + " ".join(texts))).text)


class OneByOne(MapReduce):
    @step(num_workers=1)
    async def work(self, ev: Part) -> Said:
        return Said(text=(await self.llm.acomplete(f"part {ev.number}")).text)


class InThreads(MapReduce):
    @step(num_workers=6)
    def work(self, ev: Part) -> Said:
        return Said(text=self.llm.complete(f"part {ev.number}").text)


async def test_the_steps_of_a_fan_out_are_a_task_group(llm: Parrot, opened: Opened) -> None:
    """They come over several turns of the loop: what tells them is that all of them are open."""
    await MapReduce(llm).run()
    graph = opened.graph()
    assert len(graph.calls) == 7
    assert members(graph) == [[1, 2, 3, 4, 5, 6]]


@pytest.mark.skipif(not _LATER, reason="the framework loses the run in a step's thread")
async def test_so_are_steps_in_threads(llm: Parrot, opened: Opened) -> None:
    await InThreads(llm).run()
    assert members(opened.graph()) == [[1, 2, 3, 4, 5, 6]]


async def test_steps_that_run_one_after_the_other_are_not(llm: Parrot, opened: Opened) -> None:
    await OneByOne(llm).run()
    graph = opened.graph()
    assert len(graph.calls) == 7
    assert graph.groups == []


async def test_runs_are_threads_of_their_own(llm: Parrot, opened: Opened) -> None:
    flow = MapReduce(llm, parts=2)
    await asyncio.gather(flow.run(), flow.run())
    assert [view.unplanned for view in opened.views()] == [3, 3]


class Outer(Workflow):
    """A step for each of several runs of a workflow."""

    def __init__(self, inner: Workflow) -> None:
        super().__init__(timeout=60)
        self.inner = inner

    @step
    async def both(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await asyncio.gather(self.inner.run(), self.inner.run()))


async def test_what_is_at_the_same_place_of_nested_runs_is_one_group(
    llm: Parrot, opened: Opened
) -> None:
    await Outer(MapReduce(llm, parts=3)).run()
    assert sizes(opened.graph()) == [6, 2]


@pytest.mark.skipif(not _LATER, reason="runs have no names that the application gives")
async def test_runs_of_one_name_are_one_thread(llm: Parrot, opened: Opened) -> None:
    flow: Any = MapReduce(llm, parts=2)
    for _ in range(2):
        await flow.run(run_id="Ada")
        gc.collect()  # the framework knows a run by its name until then
    (view,) = opened.views()
    assert (view.thread, view.unplanned) == ("run-Ada", 6)


@pytest.mark.skipif(_LATER, reason="the framework does not show the context of a run")
async def test_runs_in_one_context_are_one_thread(llm: Parrot, opened: Opened) -> None:
    flow = MapReduce(llm, parts=2)
    context = Context(flow)
    for _ in range(2):
        await flow.run(ctx=context)
    (view,) = opened.views()
    assert view.unplanned == 6
