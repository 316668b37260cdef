"""LCEL chains drawn by Hypothesis: text to text, from what can be planned and what can't.

A description is plain data, so that equal chains are told apart from new ones, and the same chain can
be built twice. `concurrent` says whether LangChain runs parts of it beside each other.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from hypothesis import strategies as st
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    PromptTemplate,
)
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

from parrot_integrations.langchain import ChatParrot, join_texts

Description = tuple[Any, ...]

PROMPTS: dict[str, Any] = {
    "string": PromptTemplate.from_template("Say {x}"),
    "chat": ChatPromptTemplate.from_messages([("system", "Be"), ("human", "Now {x}!")]),
    "braces": ChatPromptTemplate.from_template("{{{x}}}"),
    "partial": ChatPromptTemplate.from_template("{a}: {x}").partial(a="Go"),
    "mustache": ChatPromptTemplate.from_template("M {{{x}}}", template_format="mustache"),
    "escaped": ChatPromptTemplate.from_template("E {{x}}", template_format="mustache"),
    "padded": PromptTemplate.from_template("{x:>9}"),
    "shots": ChatPromptTemplate.from_messages(
        [
            FewShotChatMessagePromptTemplate(
                examples=[{"q": "a", "r": "b"}],
                example_prompt=ChatPromptTemplate.from_messages([("human", "{q}"), ("ai", "{r}")]),
            ),
            ("human", "{x}"),
        ]
    ),
}
READ = ("shaped", "calls", "given", "passed on")
OPAQUE = ("upper", "async", "chosen", "generator", "halves")
BINDINGS = ("config", "bound", "typed", "heard", "fields", "routed")
CONCURRENT = {"parallel", "assign", "map", "routed"}


def chains() -> st.SearchStrategy[Description]:
    ask = st.tuples(st.just("ask"), st.sampled_from(sorted(PROMPTS)), st.booleans())
    opaque = st.tuples(st.just("opaque"), st.sampled_from(OPAQUE))
    refusing = st.tuples(st.just("refuse"), st.sampled_from("ey"))
    read = st.tuples(st.just("read"), st.sampled_from(READ))
    leaf = st.one_of(ask, ask, ask, opaque, opaque, read, read, st.just(("pass",)), refusing)
    return st.recursive(leaf, _around, max_leaves=5).filter(_makes_calls)


def _around(inside: st.SearchStrategy[Description]) -> st.SearchStrategy[Description]:
    pair = st.tuples(inside, inside)
    return st.one_of(
        st.tuples(st.just("sequence"), pair),
        st.tuples(st.just("sequence"), st.tuples(inside, inside, inside)),
        st.tuples(
            st.sampled_from(["parallel", "assign", "branch", "fallback", "alternative"]), pair
        ),
        st.tuples(st.sampled_from(["map", "retry", "each half", *BINDINGS]), st.tuples(inside)),
    )


def parts(description: Description) -> Iterator[Description]:
    yield description
    if isinstance(description[-1], tuple):
        for part in description[-1]:
            yield from parts(part)


def _makes_calls(description: Description) -> bool:
    return any(part[0] == "ask" for part in parts(description))


def concurrent(description: Description) -> bool:
    several = {*CONCURRENT, "each half"}
    return any(part[0] in several or part[-1] == "passed on" for part in parts(description))


def build(description: Description, llm: ChatParrot) -> Runnable[Any, Any]:
    kind, *rest = description
    if kind == "ask":
        return _ask(rest[0], llm.bind(stop=["~"]) if rest[1] else llm)
    if kind == "opaque":
        return _opaque(rest[0])
    if kind == "read":
        return _read(rest[0], llm)
    if kind == "refuse":
        return RunnableLambda(_refusing(rest[0]), name="refuse")
    if kind == "pass":
        return RunnablePassthrough()
    return _BUILD[kind](*[build(part, llm) for part in rest[0]])


def _ask(prompt: str, model: Any) -> Runnable[Any, Any]:
    return {"x": RunnablePassthrough()} | PROMPTS[prompt] | model | StrOutputParser()


def _refusing(letter: str) -> Any:
    def refuse(text: str) -> str:
        if text.endswith(letter):
            raise ValueError("refused")
        return text

    return refuse


def _opaque(kind: str) -> Runnable[Any, Any]:
    async def later(text: str) -> str:
        return text[1:]

    def shout(chunks: Iterator[str]) -> Iterator[str]:
        for chunk in chunks:
            yield chunk.upper()

    def choose(text: str) -> Any:
        return RunnableLambda(lambda t: t + "?") if len(text) % 2 else text

    if kind == "generator":
        return RunnableGenerator(shout)
    functions = {
        "upper": RunnableLambda(lambda text: text.swapcase(), name="swap"),
        "async": RunnableLambda(lambda text: text[1:], afunc=later, name="shorter"),
        "chosen": RunnableLambda(choose),
        "halves": RunnableLambda(lambda text: text[: len(text) // 2 + 1], name="half"),
    }
    return functions[kind]


def _read(kind: str, llm: ChatParrot) -> Runnable[Any, Any]:
    """Functions whose source tells what they do, as far as it goes."""
    step = _ask("chat", llm)

    def calls(text: str) -> str:
        """Two calls, one after the other."""
        first = step.invoke(text)
        return step.invoke(f"{first.strip()}.")

    async def acalls(text: str) -> str:
        first = await step.ainvoke(text)
        return await step.ainvoke(f"{first.strip()}.")

    def passed_on(text: str, config: RunnableConfig) -> str:
        results = step.batch([text, text + "!"], config)
        return "+".join(results)

    functions = {
        "shaped": RunnableLambda(lambda text: f"<{text.strip().lower()}>", name="shaped"),
        "calls": RunnableLambda(calls, acalls),
        "given": RunnableLambda(lambda text: step, name="given"),
        "passed on": RunnableLambda(passed_on),
    }
    return functions[kind]


def _joined(a: Any, b: Any) -> Runnable[Any, Any]:
    return RunnableParallel(a=a, b=b) | itemgetter("b", "a") | join_texts("/")


def _assigned(a: Any, b: Any) -> Runnable[Any, Any]:
    first = {"x": RunnablePassthrough()} | RunnablePassthrough.assign(y=itemgetter("x") | a)
    return first.assign(z=itemgetter("y") | b) | PromptTemplate.from_template("{y}+{z}") | _text()


def _text() -> Runnable[Any, Any]:
    return RunnableLambda(lambda value: value.to_string(), name="text")


def _split(text: str) -> list[str]:
    return [text[:3], text[3:6]]


def _each_half(step: Any) -> Runnable[Any, Any]:
    """Both halves known from the start, for planning does not need to run a function."""
    halves = RunnableParallel(a=RunnablePassthrough(), b=RunnablePassthrough())
    return halves | itemgetter("a", "b") | _text_list() | step.map() | "|".join


def _text_list() -> Runnable[Any, Any]:
    return RunnableLambda(list, name="list")


def _alternatives(a: Any, b: Any) -> Runnable[Any, Any]:
    either = (RunnablePassthrough() | a).configurable_alternatives(
        ConfigurableField(id="which"), default_key="a", b=b
    )
    return either.with_config(configurable={"which": "b"})


def _fields(step: Any) -> Runnable[Any, Any]:
    """Configurable, and configured so that it stays as it is."""
    chain = RunnablePassthrough() | step
    return chain.configurable_fields(name=ConfigurableField(id="name"))


def _routed(step: Any) -> Runnable[Any, Any]:
    to_it = {"key": RunnableLambda(lambda _: "it", name="key"), "input": RunnablePassthrough()}
    return to_it | RouterRunnable({"it": step})


_BUILD: dict[str, Any] = {
    "sequence": lambda first, *steps: first.pipe(*steps),
    "parallel": _joined,
    "assign": _assigned,
    "branch": lambda a, b: RunnableBranch((lambda text: len(text) % 2 == 0, a), b),
    "fallback": lambda a, b: a.with_fallbacks([b]),
    "alternative": _alternatives,
    "map": lambda step: RunnableLambda(_split) | step.map() | join_texts("-"),
    "each half": _each_half,
    "retry": lambda s: s.with_retry(stop_after_attempt=2, wait_exponential_jitter=False),
    "config": lambda step: step.with_config(run_name="named", tags=["t"]),
    "bound": lambda step: step.bind(),
    "typed": lambda step: step.with_types(input_type=str),
    "heard": lambda step: step.with_listeners(on_end=lambda _: None),
    "fields": _fields,
    "routed": _routed,
}
