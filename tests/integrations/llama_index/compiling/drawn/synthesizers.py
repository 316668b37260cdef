"""Response synthesizers, as they are made by the factory and by their classes."""

from typing import Any

from llama_index.core.response_synthesizers import (
    Accumulate,
    BaseSynthesizer,
    CompactAndRefine,
    Refine,
    SimpleSummarize,
    TreeSummarize,
    get_response_synthesizer,
)
from llama_index.core.response_synthesizers.compact_and_accumulate import CompactAndAccumulate

from tests.integrations.llama_index.compiling.drawn import texts
from tests.integrations.llama_index.compiling.drawn.case import MODES, Case, Fact, World

CLASSES: dict[str, type[BaseSynthesizer]] = {
    "tree_summarize": TreeSummarize,
    "refine": Refine,
    "compact": CompactAndRefine,
    "accumulate": Accumulate,
    "compact_accumulate": CompactAndAccumulate,
    "simple_summarize": SimpleSummarize,
}
_TEMPLATES = {
    "tree_summarize": ("summary_template",),
    "refine": ("text_qa_template", "refine_template"),
    "compact": ("text_qa_template", "refine_template"),
}
_REFINING = ("refine", "compact")
# Refining keeps 500 tokens free, and raises where the window has no more.
_WINDOWS = {"refine": (830, 1100), "compact": (830, 1100)}


def window(world: World, kind: str) -> None:
    """Makes the model's context so small that the texts need several calls."""
    world.llm.context_window = world.rng.randint(*_WINDOWS.get(kind, (300, 480)))


def options(world: World, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"llm": world.llm, "streaming": world.chance(0.25)}
    found |= texts.templates(world, *_TEMPLATES.get(kind, ("text_qa_template",)))
    if "accumulate" in kind and world.chance(0.8):
        found["streaming"] = False  # it raises else
    if kind not in (*_REFINING, "simple_summarize"):
        found["use_async"] = world.chance(0.3)
    if kind != "simple_summarize" and world.chance(0.15):
        found["output_cls"] = Fact
    if kind in _REFINING:
        found["structured_answer_filtering"] = world.chance(0.1) and not found["streaming"]
    if kind in (*_REFINING, "tree_summarize"):
        found["verbose"] = world.chance(0.3)
    return found


def synthesizer(world: World, kind: str, **fixed: Any) -> BaseSynthesizer:
    found = {**options(world, kind), **fixed}
    if kind == "simple_summarize":
        found.pop("output_cls", None)
    if world.chance(0.5):
        return get_response_synthesizer(response_mode=kind, **found)
    return CLASSES[kind](**found)


def case(world: World, kind: str) -> Case:
    window(world, kind)
    made = synthesizer(world, kind)
    query, chunks = texts.question(world), texts.nodes(world, most=9, longest=240)
    mode = world.rng.choice(MODES)
    concurrent = mode == "async" or getattr(made, "_use_async", False)
    if world.chance(0.5):
        strings = [chunk.text for chunk in chunks]
        return Case(
            made,
            lambda subject: subject.get_response(query, strings),
            lambda subject: subject.aget_response(query, strings),
            mode,
            concurrent,
        )
    return Case(
        made,
        lambda subject: subject.synthesize(query, texts.scored(chunks)),
        lambda subject: subject.asynthesize(query, texts.scored(chunks)),
        mode,
        concurrent,
    )
