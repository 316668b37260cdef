"""Several answers, and calls that judge them."""

from operator import itemgetter
from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    chain,
)
from pydantic import BaseModel, Field

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import NOTES

QUESTION = {"question": "Should I descale with vinegar?"}
EXAMPLES = [
    {"question": f"What does note {n} say?", "reference": note} for n, note in enumerate(NOTES)
]


class Grade(BaseModel):
    """A grade for an answer."""

    score: int = Field(ge=1, le=5)
    reason: str


def pick_best(llm: ChatParrot) -> Runnable[Any, Any]:
    """Three writers, one judge."""
    answers = RunnableParallel(
        short=ask("Answer in one sentence: {question}", llm),
        kind=ask("Answer kindly: {question}", llm),
        exact=ask("Answer exactly: {question}", llm),
        question=itemgetter("question"),
    )
    judge = "Question: {question}\nA: {short}\nB: {kind}\nC: {exact}\nAnswer with the best of them."
    return answers | ask(judge, llm)


def pairwise(llm: ChatParrot) -> Runnable[Any, Any]:
    """Two models' answers compared in both orders, as against a judge's leaning to the first."""
    verdict = ask("Q: {question}\nA: {a}\nB: {b}\nWhich is better? Answer only with A or B.", llm)
    answers = RunnablePassthrough.assign(
        one=ask("Answer: {question}", llm),
        two=ask("Answer like an engineer: {question}", llm),
    )

    def swapped(first: str, second: str) -> Any:
        return lambda x: {"question": x["question"], "a": x[first], "b": x[second]}

    return answers | {
        "forth": RunnableLambda(swapped("one", "two")) | verdict,
        "back": RunnableLambda(swapped("two", "one")) | verdict,
    }


def evaluation(llm: ChatParrot) -> Runnable[Any, Any]:
    """A chain on a data set: each answer is judged against its reference, and then the mean."""
    prompt = ChatPromptTemplate.from_template(
        "Judge the answer from 1 to 5.\nQuestion: {question}\nReference: {reference}\nAnswer: {answer}"
    )
    grade = prompt | llm.with_structured_output(Grade)
    answered = RunnablePassthrough.assign(answer=ask("Answer briefly: {question}", llm))

    def mean(graded: list[dict[str, Any]]) -> float:
        return sum(each["grade"].score for each in graded) / len(graded)

    return (answered | RunnablePassthrough.assign(grade=grade)).map() | mean


def best_of(llm: ChatParrot) -> Runnable[Any, Any]:
    """Best of four: samples are drawn in a batch, scored in a batch, and compared in Python."""
    write = ask("Write a slogan, variant {variant}: {question}", llm)
    score = ask("Rate the slogan from 1 to 10, the number alone: {slogan}", llm)

    @chain
    def best(x: dict[str, str]) -> str:
        slogans = write.batch([{**x, "variant": n} for n in range(4)])
        scores = score.batch([{"slogan": slogan} for slogan in slogans])
        ranked = sorted(zip(map(int, scores), slogans, strict=True))
        return ranked[-1][1]

    return best


def tree_of_thought(llm: ChatParrot) -> Runnable[Any, Any]:
    """Thoughts, each of them weighed, and the best worked out."""
    propose = ask("Ideas on {question}, one per line", llm)
    weigh = ask("Rate from 1 to 10 how well this helps, the number alone: {thought}", llm)

    def thoughts(text: str) -> list[dict[str, str]]:
        return [{"thought": line} for line in text.splitlines()]

    def best(weighed: list[dict[str, Any]]) -> dict[str, str]:
        return max(weighed, key=lambda each: int(each["score"]))

    return (
        propose
        | thoughts
        | RunnablePassthrough.assign(score=weigh).map()
        | best
        | ask("Work this out: {thought}", llm)
    )


def panel(llm: ChatParrot) -> Runnable[Any, Any]:
    """Each of three experts answers and then reads the others' answers before all is summed up."""
    roles = ("chemist", "cook", "plumber")
    first = {role: ask(f"You are a {role}. {{question}}", llm) for role in roles}
    others = "\n".join(f"{role}: {{{role}}}" for role in roles)
    second = {role: ask(f"You are a {role}. Reconsider:\n{others}", llm) for role in roles}
    return RunnableParallel(first) | RunnableParallel(second) | ask(f"Sum up:\n{others}", llm)


JUDGING = {
    "best of three by a judge": Entry(pick_best, QUESTION, 4),
    "pairwise judge": Entry(pairwise, QUESTION, 4),
    "evaluation of a data set": Entry(evaluation, EXAMPLES[:8], 16),
    "best of four by score": Entry(best_of, QUESTION, 8),
    "tree of thought": Entry(tree_of_thought, QUESTION, 5),
    "panel of experts": Entry(panel, QUESTION, 7),
}
