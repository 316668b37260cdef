"""The question rewritten before anything is retrieved for it."""

from operator import itemgetter
from typing import Any

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough, chain

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import Notes, format_docs
from tests.integrations.langchain.corpus.retrieval import QUESTION, RAG_PROMPT

PERSPECTIVES = ChatPromptTemplate.from_template(
    "You are an AI language model assistant. Generate three different versions of the given user "
    "question to retrieve relevant documents, one per line.\nOriginal question: {question}"
)
SUB_QUESTIONS = ChatPromptTemplate.from_template(
    "Break the question into sub-questions that can be answered in isolation, one per line.\n"
    "Question: {question}"
)
EXAMPLES = [
    {"input": "Could Ada get her money back today?", "output": "How do refunds work?"},
    {"input": "Was the kettle made in May?", "output": "When are kettles made?"},
]


def unique_union(found: list[list[Document]]) -> list[Document]:
    documents = {document.page_content: document for each in found for document in each}
    return list(documents.values())


def reciprocal_rank_fusion(found: list[list[Document]], k: int = 60) -> list[Document]:
    scores: dict[str, float] = {}
    documents = {document.page_content: document for each in found for document in each}
    for each in found:
        for rank, document in enumerate(each):
            scores[document.page_content] = scores.get(document.page_content, 0) + 1 / (rank + k)
    return [documents[text] for text in sorted(scores, key=lambda text: -scores[text])]


def multi_query(llm: ChatParrot) -> Runnable[Any, Any]:
    queries = PERSPECTIVES | llm | StrOutputParser() | (lambda x: x.split("\n"))
    retrieved = queries | Notes().map() | unique_union
    return (
        {"context": retrieved, "question": itemgetter("question")}
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def fusion(llm: ChatParrot) -> Runnable[Any, Any]:
    queries = PERSPECTIVES | llm | StrOutputParser() | (lambda x: x.split("\n"))
    retrieved = queries | Notes().map() | reciprocal_rank_fusion
    return (
        {"context": retrieved, "question": itemgetter("question")}
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def hypothetical(llm: ChatParrot) -> Runnable[Any, Any]:
    """HyDE: what an answer might look like finds the documents."""
    passage = ask("Write a passage of a handbook that answers the question: {question}", llm)
    return (
        RunnablePassthrough.assign(context=passage | Notes() | format_docs)
        | RAG_PROMPT
        | llm
        | StrOutputParser()
    )


def step_back(llm: ChatParrot) -> Runnable[Any, Any]:
    """The question and a more general one are both looked up."""
    shots = FewShotChatMessagePromptTemplate(
        example_prompt=ChatPromptTemplate.from_messages([("human", "{input}"), ("ai", "{output}")]),
        examples=EXAMPLES,
    )
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Paraphrase to a more generic question."), shots, ("human", "{question}")]
    )
    general = prompt | llm | StrOutputParser()
    answer = "You are an expert.\n# {normal_context}\n# {step_back_context}\nOriginal: {question}"
    return {
        "normal_context": RunnableLambda(lambda x: x["question"]) | Notes() | format_docs,
        "step_back_context": general | Notes() | format_docs,
        "question": lambda x: x["question"],
    } | ask(answer, llm)


def answered_in_turn(llm: ChatParrot) -> Runnable[Any, Any]:
    """Each sub-question is answered with the answers before it."""
    sub_questions = SUB_QUESTIONS | llm | StrOutputParser() | (lambda x: x.split("\n"))
    prompt = ChatPromptTemplate.from_template(
        "Question: {question}\nBackground: {q_a_pairs}\nContext: {context}\nAnswer the question."
    )

    @chain
    def answer(x: dict[str, Any]) -> str:
        pairs = ""
        for question in sub_questions.invoke(x):
            rag = (
                {
                    "context": itemgetter("question") | Notes() | format_docs,
                    "question": itemgetter("question"),
                    "q_a_pairs": itemgetter("q_a_pairs"),
                }
                | prompt
                | llm
                | StrOutputParser()
            )
            found = rag.invoke({"question": question, "q_a_pairs": pairs})
            pairs += f"\n---\nQuestion: {question}\nAnswer: {found}"
        return found

    return answer


def answered_apart(llm: ChatParrot) -> Runnable[Any, Any]:
    """Each sub-question is answered by itself, and one call makes one answer of them."""
    sub_questions = SUB_QUESTIONS | llm | StrOutputParser() | (lambda x: x.split("\n"))
    rag = {"context": Notes() | format_docs, "question": RunnablePassthrough()} | RAG_PROMPT | llm
    together = ask("Here are answers:\n{answers}\nSynthesize: {question}", llm)

    def bullets(answers: list[str]) -> str:
        return "\n".join(f"- {answer}" for answer in answers)

    answers = sub_questions | (rag | StrOutputParser()).map() | bullets
    return RunnablePassthrough.assign(answers=answers) | together


REWRITING = {
    "multi-query, LCEL": Entry(multi_query, {"question": QUESTION}, 2),
    "RAG-fusion": Entry(fusion, {"question": QUESTION}, 2),
    "HyDE": Entry(hypothetical, {"question": QUESTION}, 2),
    "step-back": Entry(step_back, {"question": QUESTION}, 2),
    "sub-questions in turn": Entry(answered_in_turn, {"question": QUESTION}, 4),
    "sub-questions apart": Entry(answered_apart, {"question": QUESTION}, 5),
}
