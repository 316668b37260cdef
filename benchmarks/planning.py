"""What planning costs: chains of several shapes are planned, and nothing is sent.

    python benchmarks/planning.py [--repeat 20]

Printed are the milliseconds that a plan takes, median with fastest and slowest, the calls in it, and
the median per call. Planning is to cost under 1 ms per call, and under 100 ms for a 200-way map.
"""

import argparse
import statistics
import time
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from parrot_integrations.langchain import ChatParrot, compile, join_texts
from parrot_integrations.planning.plan import Plan

Chain = tuple[Runnable[Any, Any], Any]


def ask(template: str, llm: ChatParrot) -> Runnable[Any, str]:
    """Prompt, model and parser."""
    return ChatPromptTemplate.from_template(template) | llm | StrOutputParser()


def map_reduce(llm: ChatParrot) -> Chain:
    """Two hundred calls side by side, and one over their answers."""
    parts = ask("Summarize: {part}", llm).map() | join_texts()
    return {"all": parts} | ask("Combine: {all}", llm), [{"part": f"Part {i}"} for i in range(200)]


def refine(llm: ChatParrot) -> Chain:
    """Fifty calls, one after another."""
    chain: Runnable[Any, Any] = RunnablePassthrough.assign(draft=ask("Describe {topic}.", llm))
    for _ in range(49):
        chain = chain | RunnablePassthrough.assign(draft=ask("Improve {draft} on {topic}.", llm))
    return chain, {"topic": "rain"}


def broken(llm: ChatParrot) -> Chain:
    """Two hundred calls, and behind each a function: what comes then waits for the run."""
    each = ask("Name {x}", llm) | RunnableLambda(str.upper) | ask("Tell of {x}", llm)
    return each.map(), [{"x": str(i)} for i in range(200)]


def measured(chain: Runnable[Any, Any], value: Any, repeat: int) -> tuple[list[float], Plan]:
    """Milliseconds of each repetition, and the last plan."""
    compiled, times = compile(chain), []
    for _ in range(repeat):
        begin = time.perf_counter()
        plan = compiled.plan([value])
        times.append((time.perf_counter() - begin) * 1000)
    return times, plan


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    llm = ChatParrot(base_url="http://127.0.0.1:9", temperature=0)
    print(
        f"{'chain':12}{'calls':>7}{'median':>10}{'fastest':>10}{'slowest':>10}{'per call':>10}  (ms)"
    )
    for name, build in (("map-reduce", map_reduce), ("refine", refine), ("breaks", broken)):
        times, plan = measured(*build(llm), repeat)
        median, calls = statistics.median(times), len(plan.calls)
        figures = (median, min(times), max(times), median / calls)
        print(f"{name:12}{calls:7d}" + "".join(f"{figure:10.3f}" for figure in figures))


if __name__ == "__main__":
    main()
