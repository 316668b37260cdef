"""Retrieval: a question, what is found for it, an answer."""

from operator import itemgetter
from typing import Any

from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_classic.chains.history_aware_retriever import create_history_aware_retriever
from langchain_classic.chains.retrieval import create_retrieval_chain
from langchain_classic.retrievers import ContextualCompressionRetriever, MultiQueryRetriever
from langchain_classic.retrievers.document_compressors import LLMChainExtractor
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from pydantic import BaseModel, Field

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry
from tests.integrations.langchain.corpus.parts import NOTES, Notes, format_docs

QUESTION = "How long is the warranty of the kettle?"
CHAT = [HumanMessage("What is the Model T?"), AIMessage("A kettle that boils fast.")]
RAG_PROMPT = ChatPromptTemplate.from_template(
    "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}"
)
CHAT_PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Use the retrieved context to answer. Keep it concise.\n\n{context}"),
        MessagesPlaceholder("chat_history", optional=True),
        ("human", "{input}"),
    ]
)
CONDENSE_PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Rewrite the latest question so that it stands without the chat history."),
        MessagesPlaceholder("chat_history"),
        ("human", "{input}"),
    ]
)


class Relevance(BaseModel):
    """Whether a document helps."""

    relevant: bool = Field(description="The document answers the question")


class Search(BaseModel):
    """A search over the notes."""

    query: str
    newest: int = Field(description="The number of the newest note that may be used")


def lcel(llm: ChatParrot) -> Runnable[Any, Any]:
    return (
        {"context": Notes() | format_docs, "question": RunnablePassthrough()}
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def with_sources(llm: ChatParrot) -> Runnable[Any, Any]:
    answer = (
        RunnablePassthrough.assign(context=lambda x: format_docs(x["context"]))
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )
    found = RunnableParallel({"context": Notes(), "question": RunnablePassthrough()})
    return found.assign(answer=answer)


def retrieval_chain(llm: ChatParrot) -> Runnable[Any, Any]:
    return create_retrieval_chain(Notes(), create_stuff_documents_chain(llm, CHAT_PROMPT))


def history_aware(llm: ChatParrot) -> Runnable[Any, Any]:
    retriever = create_history_aware_retriever(llm, Notes(), CONDENSE_PROMPT)
    return create_retrieval_chain(retriever, create_stuff_documents_chain(llm, CHAT_PROMPT))


def condensed(llm: ChatParrot) -> Runnable[Any, Any]:
    """Conversational retrieval as it is written with LCEL alone."""
    standalone = CONDENSE_PROMPT | llm | StrOutputParser()
    return (
        RunnablePassthrough.assign(question=standalone)
        | RunnablePassthrough.assign(context=itemgetter("question") | Notes() | format_docs)
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def multi_query_retriever(llm: ChatParrot) -> Runnable[Any, Any]:
    retriever = MultiQueryRetriever.from_llm(retriever=Notes(), llm=llm)
    return (
        {"context": retriever | format_docs, "question": RunnablePassthrough()}
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def compressed(llm: ChatParrot) -> Runnable[Any, Any]:
    """Every document is cut to what the question wants of it, by a call each."""
    extractor = LLMChainExtractor.from_llm(llm)
    retriever = ContextualCompressionRetriever(base_compressor=extractor, base_retriever=Notes())
    return create_retrieval_chain(retriever, create_stuff_documents_chain(llm, CHAT_PROMPT))


def graded(llm: ChatParrot) -> Runnable[Any, Any]:
    """Each document is judged by itself, and those that don't help are left out."""
    prompt = ChatPromptTemplate.from_template(
        "Grade the document: does it answer the question?\nDocument: {document}\nQuestion: {question}"
    )
    grader = prompt | llm.with_structured_output(Relevance)

    def pairs(x: dict[str, Any]) -> list[dict[str, str]]:
        return [{"document": d.page_content, "question": x["question"]} for d in x["documents"]]

    def keep(x: dict[str, Any]) -> str:
        judged = zip(x["documents"], x["grades"], strict=True)
        return format_docs([document for document, grade in judged if grade.relevant])

    return (
        {"documents": itemgetter("question") | Notes(k=8), "question": itemgetter("question")}
        | RunnablePassthrough.assign(grades=RunnableLambda(pairs) | grader.map())
        | RunnablePassthrough.assign(context=keep)
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def self_query(llm: ChatParrot) -> Runnable[Any, Any]:
    """The model writes a search with a filter."""
    prompt = ChatPromptTemplate.from_template("Write a search for the question: {question}")

    def search(wanted: Search) -> list[Document]:
        found = Notes(k=len(NOTES)).invoke(wanted.query)
        return [document for document in found if document.metadata["source"] <= wanted.newest]

    return (
        RunnablePassthrough.assign(
            context=prompt | llm.with_structured_output(Search) | search | format_docs
        )
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


RETRIEVAL = {
    "retrieval, LCEL": Entry(lcel, QUESTION, 1),
    "retrieval with its sources": Entry(with_sources, QUESTION, 1),
    "create_retrieval_chain": Entry(retrieval_chain, {"input": QUESTION}, 1),
    "history-aware retriever": Entry(
        history_aware, {"input": "Its warranty?", "chat_history": CHAT}, 2
    ),
    "question condensed, LCEL": Entry(
        condensed, {"input": "Its warranty?", "chat_history": CHAT}, 2
    ),
    "MultiQueryRetriever": Entry(multi_query_retriever, QUESTION, 2),
    "contextual compression": Entry(compressed, {"input": QUESTION}, 4),
    "documents graded": Entry(graded, {"question": QUESTION}, 9),
    "self-query": Entry(self_query, {"question": QUESTION}, 2),
}
