"""Many documents: summed up, extracted from, tagged, translated."""

from operator import itemgetter
from typing import Any

from langchain_classic.chains.question_answering import load_qa_chain
from langchain_classic.chains.summarize import load_summarize_chain
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.runnables.base import RunnableEach
from pydantic import BaseModel

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Build, Entry, ask
from tests.integrations.langchain.corpus.parts import DOCUMENTS, REVIEWS, format_docs

TEXT = {"text": " ".join(REVIEWS), "question": "What breaks?"}


class Facts(BaseModel):
    """What a review says."""

    product: str
    complaint: bool


class Tags(BaseModel):
    """How a review sounds."""

    sentiment: str
    urgency: int


def map_reduce(llm: ChatParrot) -> Runnable[Any, Any]:
    summary = (
        {"doc": lambda document: document.page_content}
        | PromptTemplate.from_template("Write a concise summary of: {doc}")
        | llm
        | StrOutputParser()
    )

    def joined(summaries: list[str]) -> dict[str, str]:
        return {"docs": "\n\n".join(summaries)}

    return summary.map() | joined | ask("Consolidate these summaries:\n{docs}", llm)


def classic(kind: str) -> Build:
    return lambda llm: load_summarize_chain(llm, chain_type=kind)


def refine(llm: ChatParrot) -> Runnable[Any, Any]:
    """Document after document, in a loop."""
    first = ask("Summarize: {text}", llm)
    more = ask("Summary so far: {summary}\nMore text: {text}\nRefine the summary.", llm)

    def run(documents: list[Any]) -> str:
        summary = first.invoke({"text": documents[0].page_content})
        for document in documents[1:]:
            summary = more.invoke({"summary": summary, "text": document.page_content})
        return summary

    return RunnableLambda(run)


def map_rerank(llm: ChatParrot) -> Runnable[Any, Any]:
    return load_qa_chain(llm, chain_type="map_rerank")


def extraction(llm: ChatParrot) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Extract the facts of the review, null where unknown."), ("human", "{text}")]
    )

    def chunks(reviews: list[str]) -> list[dict[str, str]]:
        return [{"text": review} for review in reviews]

    return RunnableLambda(chunks) | (prompt | llm.with_structured_output(Facts)).map()


def tagging(llm: ChatParrot) -> Runnable[Any, Any]:
    """A schema, and more of the same text side by side; then an answer to it."""
    tags = ChatPromptTemplate.from_template("Tag the review.\n{text}")
    return RunnableParallel(
        tags=tags | llm.with_structured_output(Tags),
        language=ask("Which language is this? {text}", llm),
        topic=ask("What is this about, in two words? {text}", llm),
        text=itemgetter("text"),
    ) | RunnablePassthrough.assign(
        reply=ask("Reply in {language} to this review about {topic}: {text}", llm)
    )


def translations(llm: ChatParrot) -> Runnable[Any, Any]:
    """A summary in five languages."""
    languages = ("French", "German", "Italian", "Polish", "Finnish")
    prompt = ChatPromptTemplate.from_template("Translate to {language}: {summary}")
    into = {
        language: prompt.partial(language=language) | llm | StrOutputParser()
        for language in languages
    }
    return {"summary": ask("Summarize for a shop window: {text}", llm)} | RunnableParallel(into)


def summary_and_question(llm: ChatParrot) -> Runnable[Any, Any]:
    summary = ask("Summarize the reviews: {text}", llm)
    answer = ask("Summary: {summary}\nQuestion: {question}", llm)
    return RunnablePassthrough.assign(summary=summary).assign(answer=answer)


def batch_in_a_loop(llm: ChatParrot) -> Runnable[Any, Any]:
    """Reviews in batches of four from plain Python, and a report on them."""
    label = ask("Label this review in a word: {review}", llm)
    report = ask("Write a report on these labels:\n{labels}", llm)

    def run(reviews: list[str]) -> str:
        labels: list[str] = []
        for start in range(0, len(reviews), 4):
            labels += label.batch([{"review": review} for review in reviews[start : start + 4]])
        return report.invoke({"labels": "\n".join(labels)})

    return RunnableLambda(run)


def generate(llm: ChatParrot) -> Runnable[Any, Any]:
    """`llm.generate`, which asks one after the other."""

    def run(reviews: list[str]) -> list[str]:
        prompts = [[HumanMessage(f"Answer this review politely: {review}")] for review in reviews]
        result = llm.generate(prompts)
        return [generations[0].text for generations in result.generations]

    return RunnableLambda(run)


def each(llm: ChatParrot) -> Runnable[Any, Any]:
    questions = ask("Write a quiz question about: {text}", llm)
    texts = RunnableLambda(lambda docs: [{"text": doc.page_content} for doc in docs])
    return texts | RunnableEach(bound=questions)


def chunk_questions(llm: ChatParrot) -> Runnable[Any, Any]:
    """Question and answer pairs of a document, for a data set."""
    question = ask("Write a question that this text answers: {text}", llm)
    answer = ask("Text: {text}\nQuestion: {question}\nAnswer.", llm)
    pair = RunnablePassthrough.assign(question=question).assign(answer=answer)
    return (lambda docs: [{"text": format_docs([doc])} for doc in docs]) | pair.map()


DOCUMENT_CHAINS = {
    "map-reduce, LCEL": Entry(map_reduce, DOCUMENTS, 11),
    "load_summarize_chain stuff": Entry(classic("stuff"), DOCUMENTS, 1, ordered=True),
    "load_summarize_chain map_reduce": Entry(classic("map_reduce"), DOCUMENTS, 11),
    "load_summarize_chain refine": Entry(classic("refine"), DOCUMENTS[:6], 6, ordered=True),
    "refine in a loop": Entry(refine, DOCUMENTS[:6], 6, ordered=True),
    "map-rerank": Entry(
        map_rerank, {"input_documents": DOCUMENTS[:5], "question": "How long is the warranty?"}, 5
    ),
    "extraction": Entry(extraction, REVIEWS, 8),
    "tagging": Entry(tagging, {"text": REVIEWS[2]}, 4),
    "translations": Entry(translations, TEXT, 6),
    "summary, then a question": Entry(summary_and_question, TEXT, 2),
    "batches in a loop": Entry(batch_in_a_loop, REVIEWS, 9),
    "llm.generate": Entry(generate, REVIEWS, 8, ordered=True),
    "RunnableEach": Entry(each, DOCUMENTS[:6], 6),
    "question and answer pairs": Entry(chunk_questions, DOCUMENTS[:6], 12),
}
