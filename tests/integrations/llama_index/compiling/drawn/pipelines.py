"""Query pipelines, of the releases that have them: graphs of prompts, LLMs and user's functions."""

import warnings
from collections.abc import Callable, Generator
from importlib.util import find_spec
from typing import Any

from llama_index.core import Settings
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.schema import NodeWithScore, TextNode

from tests.integrations.llama_index.compiling.drawn import texts
from tests.integrations.llama_index.compiling.drawn.case import Case, World

if find_spec("llama_index.core.query_pipeline") is not None:
    from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
    from llama_index.core.base.query_pipeline.query import CustomQueryComponent
    from llama_index.core.indices.query.query_transform import HyDEQueryTransform
    from llama_index.core.llms.llm import LLMCompleteComponent
    from llama_index.core.query_pipeline import (
        ArgPackComponent,
        FnComponent,
        InputComponent,
        LoopComponent,
        QueryPipeline,
        RouterComponent,
        StatefulFnComponent,
    )
    from llama_index.core.query_pipeline.components.argpacks import KwargPackComponent
else:
    BaseSelector = CustomQueryComponent = object

Port = tuple[str, str | None]


def said(value: Any) -> str:
    """What a user makes a text of."""
    if isinstance(value, ChatResponse):
        return value.message.content or ""
    if isinstance(value, CompletionResponse):
        return value.text
    if isinstance(value, Generator):
        return "".join(chunk.delta or "" for chunk in value)
    if isinstance(value, list):
        return " & ".join(map(said, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}={said(value[key])}" for key in sorted(value))
    if isinstance(value, ChatMessage):
        return value.content or ""
    return "a stream" if hasattr(value, "__aiter__") else str(value)


class Functions:
    """A user's functions; `world.calls` has what they were asked."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _noted(self, name: str, *values: Any) -> list[str]:
        found = [said(value) for value in values]
        self._world.calls.append(f"{name} {found}")
        if any("refuse" in text for text in found):
            raise ValueError("refused")
        return found

    def one(self, name: str) -> Callable[[Any], Any]:
        def one(x: Any) -> str:
            (text,) = self._noted(name, x)
            return f"{text[:12]}?{len(text)}"

        return one

    def two(self, name: str) -> Callable[[Any, Any], Any]:
        def two(x: Any, y: Any, end: str = ".") -> str:
            first, second = self._noted(name, x, y)
            return f"{first} + {second[:20]}{end}"

        return two

    def joined(self, name: str) -> Callable[..., Any]:
        def joined(**values: Any) -> str:
            found = self._noted(name, *[values[key] for key in sorted(values)])
            return " | ".join(text[:25] for text in found)

        return joined

    def later(self, name: str) -> Callable[[Any], Any]:
        async def later(x: Any) -> str:
            (text,) = self._noted(f"async {name}", x)
            return text.title()

        return later

    def counted(self, name: str) -> Callable[..., Any]:
        def counted(state: dict[str, Any], x: Any) -> str:
            (text,) = self._noted(name, x)
            state[name] = "known"  # and no count: batches run side by side
            return f"{text} ({state[name]})"

        return counted

    def nodes(self, name: str) -> Callable[[Any], Any]:
        def nodes(x: Any) -> list[NodeWithScore]:
            (text,) = self._noted(name, x)
            pieces = [text[start : start + 40] for start in range(0, max(1, len(text)), 40)]
            return [
                NodeWithScore(node=TextNode(text=piece, id_=f"n{n}"), score=0.5)
                for n, piece in enumerate(pieces)
            ]

        return nodes

    def condition(self, name: str) -> Callable[[Any], bool]:
        def condition(output: Any) -> bool:
            (text,) = self._noted(name, "" if isinstance(output, Generator) else output)
            return len(text) % 3 != 0

        return condition

    def delivered(self, name: str) -> Callable[[Any], Any]:
        def delivered(output: Any) -> str:
            (text,) = self._noted(name, output)
            return text.upper()

        return delivered


class Chooser(BaseSelector):
    """A user's selector."""

    def _choose(self, choices: Any, query: Any) -> Any:
        chosen = len(query.query_str) % len(choices)
        return SelectorResult(selections=[SingleSelection(index=chosen, reason="so long")])

    def _select(self, choices: Any, query: Any) -> Any:
        return self._choose(choices, query)

    async def _aselect(self, choices: Any, query: Any) -> Any:
        return self._choose(choices, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: Any) -> None: ...


class Halves(CustomQueryComponent):
    """A user's component, with two outputs and no async run."""

    @property
    def _input_keys(self) -> set[str]:
        return {"x"}

    @property
    def _output_keys(self) -> set[str]:
        return {"first", "second"}

    def _run_component(self, **kwargs: Any) -> dict[str, Any]:
        text = said(kwargs["x"])
        return {"first": text[: len(text) // 2], "second": text[len(text) // 2 :]}


def _pipeline(**options: Any) -> Any:
    """A new one, without its warning that it is deprecated."""
    with warnings.catch_warnings(record=True):
        return QueryPipeline(**options)


class Drawing:
    """One pipeline, as it is drawn: what is in it, and which outputs later steps may take."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.functions = Functions(world)
        self.ports: list[Port] = []
        self.roots: dict[str, dict[str, str]] = {}
        options: dict[str, Any] = {"verbose": world.chance(0.15), "num_workers": 7}
        if world.chance(0.1):
            options["show_progress"] = True
        self.pipeline = _pipeline(**options)

    def draw(self) -> None:
        for _ in range(1 if self.world.chance(0.8) else 2):
            self._root()
        steps = [self._ask, self._ask, self._ask, self._ask, self._function, self._function]
        rare = [self._nested, self._nested, self._router, self._halves, self._pack, self._loop]
        rare += [self._summary, self._hyde, self._stateful]
        for number in range(self.rng.randint(2, 7)):
            kinds = rare if self.world.chance(0.25) else steps
            self.rng.choice(kinds)(f"{number}")

    def join(self) -> None:
        """One function of all that nothing else reads."""
        leaves = self.pipeline.get_leaf_keys()
        if len(leaves) == 1:
            return
        joined = self.functions.joined("joined")
        self.pipeline.add("joined", FnComponent(fn=joined, req_params=set(leaves)))
        for leaf in leaves:
            ports = [key for name, key in self.ports if name == leaf]
            self.pipeline.add_link(leaf, "joined", src_key=ports[0], dest_key=leaf)

    def _text(self) -> str:
        return "refuse" if self.world.chance(0.01) else texts.sentence(self.world)

    def _root(self) -> None:
        name = f"root{len(self.roots)}"
        keys = self.rng.sample(["x", "y", "z"], self.rng.randint(1, 3))
        if self.world.chance(0.3):
            keys = keys[:1]
            self.pipeline.add(name, PromptTemplate(f"Of {{{keys[0]}}}."))
            self.ports.append((name, None))
        else:
            self.pipeline.add(name, InputComponent())
            self.ports += [(name, key if len(keys) > 1 else None) for key in keys]
        self.roots[name] = {key: self._text() for key in keys}

    def _link(self, dest: str, key: str | None) -> None:
        # More often of the last ones, so that chains become long.
        src, src_key = self.rng.choice(self.ports[-3:] if self.world.chance(0.6) else self.ports)
        functions: dict[str, Any] = {}
        if self.world.chance(0.08):
            functions["condition_fn"] = self.functions.condition(f"if {src} {dest}")
        if self.world.chance(0.08):
            functions["input_fn"] = self.functions.delivered(f"to {src} {dest}")
        self.pipeline.add_link(src, dest, src_key=src_key, dest_key=key, **functions)

    def _llm(self, name: str, **options: Any) -> Any:
        options["streaming"] = self.world.chance(0.1)
        if self.world.chance(0.3):
            return LLMCompleteComponent(llm=self.world.llm, **options)
        return self.world.llm.as_query_component(**options)

    def _prompt(self, keys: list[str]) -> Any:
        body = "\n".join(f"{key.upper()}: {{{key}}}" for key in keys)
        if self.world.chance(0.3):
            roles = [("system", texts.PREAMBLE), ("user", body)]
            template: Any = ChatPromptTemplate.from_messages(roles)
        elif self.world.chance(0.2):
            template = PromptTemplate("{tone}\n" + body).partial_format(tone="Be brief.")
        else:
            template = PromptTemplate(texts.PREAMBLE + body)
        return template.as_query_component(
            llm=self.rng.choice([None, self.world.llm]), format_messages=self.world.chance(0.3)
        )

    def _ask(self, number: str) -> None:
        keys = ["p", "q", "r"][: self.rng.choice([1, 1, 2, 3])]
        prompt = self._prompt(keys)
        if len(keys) > 1 and self.world.chance(0.15):
            prompt.partial(**{keys.pop(): "what was said before"})
        self.pipeline.add(f"prompt{number}", prompt)
        for key in keys:
            self._link(
                f"prompt{number}", None if len(keys) == 1 and self.world.chance(0.7) else key
            )
        self.pipeline.add(f"llm{number}", self._llm(number))
        self.pipeline.add_link(f"prompt{number}", f"llm{number}")
        self.ports.append((f"llm{number}", self.rng.choice([None, "output"])))
        if self.world.chance(0.1):
            self.ports.append((f"prompt{number}", "prompt"))

    def _function(self, number: str) -> None:
        name = f"fn{number}"
        if self.world.chance(0.5):
            self.pipeline.add(name, FnComponent(fn=self.functions.two(name)))
            keys: list[str | None] = ["x", "y"]
        else:
            later = self.functions.later(name) if self.world.chance(0.4) else None
            self.pipeline.add(name, FnComponent(fn=self.functions.one(name), async_fn=later))
            keys = [self.rng.choice(["x", None])]
        self._linked(name, keys)

    def _linked(self, name: str, keys: list[Any], output: str | None = None) -> None:
        for key in keys:
            self._link(name, key)
        self.ports.append((name, output))

    def _chain(self, number: str) -> Any:
        template = PromptTemplate(f"Chain {number}: {{it}}")
        chain: list[Any] = [template, self._llm(number)]
        if self.world.chance(0.4):
            chain.append(FnComponent(fn=self.functions.one(f"in chain {number}")))
            if self.world.chance(0.5):
                chain += [PromptTemplate("And {it}"), self._llm(number)]
        return _pipeline(chain=chain)

    def _nested(self, number: str) -> None:
        self.pipeline.add(f"nested{number}", self._chain(number))
        self._linked(f"nested{number}", ["it"])

    def _router(self, number: str) -> None:
        components = [self._chain(number), self.world.llm.as_query_component()]
        router = RouterComponent(selector=Chooser(), choices=["a", "b"], components=components)
        self.pipeline.add(f"router{number}", router)
        self._linked(f"router{number}", ["query"])

    def _halves(self, number: str) -> None:
        self.pipeline.add(f"halves{number}", Halves())
        self._linked(f"halves{number}", ["x"], "first")
        self.ports.append((f"halves{number}", "second"))

    def _pack(self, number: str) -> None:
        pack = self.rng.choice([ArgPackComponent, KwargPackComponent])
        convert = self.functions.one(f"pack{number}") if self.world.chance(0.3) else None
        self.pipeline.add(f"pack{number}", pack(convert_fn=convert))
        self._linked(f"pack{number}", ["x", "y"])

    def _loop(self, number: str) -> None:
        once = _pipeline(chain=[PromptTemplate("Again {it}"), self._llm(number)])
        loop = LoopComponent(
            pipeline=once,
            should_exit_fn=lambda output: len(said(output)) > 60,
            add_output_to_input_fn=lambda before, output: {"it": said(output)[:40]},
            max_iterations=3,
        )
        self.pipeline.add(f"loop{number}", loop)
        self._linked(f"loop{number}", ["it"])

    def _summary(self, number: str) -> None:
        nodes = FnComponent(fn=self.functions.nodes(f"nodes{number}"))
        self.pipeline.add(f"nodes{number}", nodes)
        self._linked(f"nodes{number}", ["x"])
        self.pipeline.add(f"summary{number}", TreeSummarize(llm=self.world.llm))
        self._link(f"summary{number}", "query_str")
        self.pipeline.add_link(f"nodes{number}", f"summary{number}", dest_key="nodes")
        self.ports.append((f"summary{number}", None))

    def _hyde(self, number: str) -> None:
        self.pipeline.add(f"hyde{number}", HyDEQueryTransform(llm=self.world.llm))
        self._linked(f"hyde{number}", ["query_str"])

    def _stateful(self, number: str) -> None:
        component = StatefulFnComponent(fn=self.functions.counted(f"state{number}"))
        self.pipeline.add(f"state{number}", component)
        self._linked(f"state{number}", ["x"])


Entry = tuple[Callable[[Any], Any], Callable[[Any], Any], bool]
"""Asks and aasks, and whether LlamaIndex runs it side by side even when it is asked synchronously."""


def told(result: Any) -> Any:
    """Also what the intermediates and the streams hold."""
    if isinstance(result, Generator):
        return [*result]
    if isinstance(result, dict):
        return {key: told(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [told(item) for item in result]
    if type(result).__name__ == "ComponentIntermediates":
        return ["intermediates", told(result.inputs), told(result.outputs)]
    return result


async def atold(result: Any) -> Any:
    if hasattr(result, "__aiter__"):
        return [chunk async for chunk in result]
    return told(result)


def _entry(name: str, *args: Any, **kwargs: Any) -> Entry:
    async def aask(subject: Any) -> Any:
        return await atold(await getattr(subject, f"a{name}")(*args, **kwargs))

    def ask(subject: Any) -> Any:
        return told(getattr(subject, name)(*args, **kwargs))

    return ask, aask, "batch" in kwargs


def _single(world: World, values: dict[str, str]) -> Entry:
    """An entry for pipelines that have one root."""
    rng, options = world.rng, dict[str, Any]()
    if world.chance(0.2):
        options["return_values_direct"] = False
    if world.chance(0.25):
        count = rng.randint(1, 3)
        several = {key: [f"{value} {n}" for n in range(count)] for key, value in values.items()}
        return _entry("run", batch=True, **several, **options)
    name = rng.choice(["run", "run", "run_with_intermediates"])
    if len(values) == 1 and world.chance(0.3):
        return _entry(name, *values.values(), **options)
    return _entry(name, **values, **options)


def _several(world: World, roots: dict[str, dict[str, str]]) -> Entry:
    if world.chance(0.25):
        batch = {
            root: {key: [value, f"{value}!"] for key, value in values.items()}
            for root, values in roots.items()
        }
        return _entry("run_multi", batch, batch=True)
    return _entry(world.rng.choice(["run_multi", "run_multi_with_intermediates"]), roots)


def case(world: World) -> Case:
    drawing = Drawing(world)
    drawing.draw()
    several = len(drawing.roots) > 1 or world.chance(0.3)
    if not several or world.chance(0.3):
        drawing.join()
    mode = world.rng.choice(["sync", "sync", "async", "loop"])
    if several:
        ask, aask, batch = _several(world, drawing.roots)
    else:
        ask, aask, batch = _single(world, *drawing.roots.values())
    concurrent = batch or mode == "async"
    if world.chance(0.7) and not concurrent:  # what runs side by side shares a trace
        drawing.pipeline.set_callback_manager(Settings.callback_manager)
    return Case(drawing.pipeline, ask, aask, mode, concurrent)


PIPELINES: dict[str, Callable[[World], Case]] = (
    {"query pipeline": case} if find_spec("llama_index.core.query_pipeline") is not None else {}
)
