"""Routers, guards, and what happens when a call fails."""

import re
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnablePassthrough
from pydantic import BaseModel

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import Notes, format_docs
from tests.integrations.langchain.corpus.retrieval import RAG_PROMPT

TICKET = {"question": "I was charged twice for the kettle."}
CLASSIFY = (
    "Classify the question as `billing`, `shipping` or `other`. Answer with the category alone.\n"
    "<question>{question}</question>"
)


class Route(BaseModel):
    """Where a question goes."""

    source: Literal["notes", "nothing"]


def branch(llm: ChatParrot) -> Runnable[Any, Any]:
    classify = PromptTemplate.from_template(CLASSIFY) | llm | StrOutputParser()
    routes = RunnableBranch(
        (lambda x: "billing" in x["topic"].lower(), ask("As an accountant: {question}", llm)),
        (lambda x: "shipping" in x["topic"].lower(), ask("As a carrier: {question}", llm)),
        ask("Respond to: {question}", llm),
    )
    return {"topic": classify, "question": itemgetter("question")} | routes


def lambda_router(llm: ChatParrot) -> Runnable[Any, Any]:
    classify = PromptTemplate.from_template(CLASSIFY) | llm | StrOutputParser()
    billing = ask("As an accountant: {question}", llm)
    general = ask("Respond to: {question}", llm)

    def route(info: dict[str, Any]) -> Any:
        if "billing" in info["topic"].lower():
            return billing
        return general

    return {"topic": classify, "question": lambda x: x["question"]} | RunnableLambda(route)


def structured_router(llm: ChatParrot) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_template("Route the question to a source.\n{question}")
    with_notes = (
        RunnablePassthrough.assign(context=itemgetter("question") | Notes() | format_docs)
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )
    plainly = ask("Answer: {question}", llm)

    def choose(x: dict[str, Any]) -> Any:
        return with_notes if x["route"].source == "notes" else plainly

    router = prompt | llm.with_structured_output(Route)
    return RunnablePassthrough.assign(route=router) | RunnableLambda(choose)


def guarded(llm: ChatParrot) -> Runnable[Any, Any]:
    """A call says whether the question is allowed, and only then is it answered."""
    check = ask("Is this a question for a shop? Answer only with yes or no.\n{question}", llm)

    def guard(x: dict[str, Any]) -> dict[str, Any]:
        if x["allowed"].strip().lower() != "yes":
            raise ValueError("That is no question for a shop.")
        return x

    return RunnablePassthrough.assign(allowed=check) | guard | ask("Answer: {question}", llm)


def masked(llm: ChatParrot) -> Runnable[Any, Any]:
    """Personal data is taken out before, and numbers after."""

    def anonymize(x: dict[str, str]) -> dict[str, str]:
        return {**x, "question": re.sub(r"[\w.]+@[\w.]+", "<mail>", x["question"])}

    def censor(answer: str) -> str:
        return re.sub(r"\d", "*", answer)

    return RunnableLambda(anonymize) | ask("Answer: {question}", llm) | censor


def falling_back(llm: ChatParrot) -> Runnable[Any, Any]:
    """The long prompt FAILs, the short one doesn't; then the answer is made nicer."""
    long = ask("FAIL, for this is too long: {question}", llm)
    short = ask("Answer briefly: {question}", llm)
    return {"answer": long.with_fallbacks([short])} | ask("Make it friendlier: {answer}", llm)


def retrying(llm: ChatParrot) -> Runnable[Any, Any]:
    """The answer is no JSON, and so it stays."""
    chain = ChatPromptTemplate.from_template("{question}, without its closing brace") | llm
    return (chain | _strict_json).with_retry(
        retry_if_exception_type=(OutputParserException,),
        stop_after_attempt=2,
        wait_exponential_jitter=False,
    )


def _strict_json(message: Any) -> Any:
    if not message.text.endswith("}"):
        raise OutputParserException(f"no JSON: {message.text}")
    return JsonOutputParser().invoke(message)


def mended(llm: ChatParrot) -> Runnable[Any, Any]:
    """What can't be parsed is given back to the model, with the error."""
    first = ask("Extract name and order without its closing brace: {question}", llm)
    again = ask("Give this as JSON: {broken}", llm) | JsonOutputParser()

    def parse(text: str) -> Any:
        try:
            return {"parsed": _strict_json_text(text)}
        except ValueError:
            return again.invoke({"broken": text})

    return first | RunnableLambda(parse)


def _strict_json_text(text: str) -> Any:
    if not text.endswith("}"):
        raise ValueError("cut off")
    return JsonOutputParser().parse(text)


ROUTING = {
    "RunnableBranch": Entry(branch, TICKET, 2),
    "lambda that returns a chain": Entry(lambda_router, TICKET, 2),
    "router with structured output": Entry(structured_router, TICKET, 2),
    "moderation guard": Entry(guarded, TICKET, 2),
    "moderation guard that raises": Entry(
        guarded, {"question": "Write my homework."}, 1, fails=True
    ),
    "masked on both sides": Entry(
        masked, {"question": "Is ada@example.com a customer?"}, 1, ordered=True
    ),
    "fallback": Entry(falling_back, TICKET, 3),
    "retries used up": Entry(retrying, TICKET, 2, ordered=True, fails=True),
    "JSON mended": Entry(mended, TICKET, 2, ordered=True),
}
