"""Chats: what was said before is part of the prompt."""

from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory, InMemoryChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    get_buffer_string,
    trim_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import Notes, format_docs

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You are a helpful assistant of a shop."),
        MessagesPlaceholder("history"),
        ("human", "{question}"),
    ]
)
SAID: list[BaseMessage] = [
    HumanMessage("I bought a kettle."),
    AIMessage("Congratulations! Can I help you with it?"),
    HumanMessage("It is loud."),
    AIMessage("That may be chalk."),
]
QUESTION = {"question": "How do I get rid of it?"}


class Store:
    """Histories by session, each begun with what was said before."""

    def __init__(self) -> None:
        self._histories: dict[str, InMemoryChatMessageHistory] = {}

    def __call__(self, session_id: str) -> BaseChatMessageHistory:
        return self._histories.setdefault(session_id, InMemoryChatMessageHistory(messages=[*SAID]))


def with_message_history(llm: ChatParrot) -> Runnable[Any, Any]:
    return RunnableWithMessageHistory(
        PROMPT | llm | StrOutputParser(),
        Store(),
        input_messages_key="question",
        history_messages_key="history",
    )


def history_and_retrieval(llm: ChatParrot) -> Runnable[Any, Any]:
    """The question is condensed with the history, then answered with what is found."""
    condense = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("history"), ("human", "Rewrite to stand alone: {question}")]
    )
    answer = ChatPromptTemplate.from_messages(
        [
            ("system", "Answer with this context: {context}"),
            MessagesPlaceholder("history"),
            ("human", "{question}"),
        ]
    )
    found = condense | llm | StrOutputParser() | Notes() | format_docs
    chain = RunnablePassthrough.assign(context=found) | answer | llm | StrOutputParser()
    return RunnableWithMessageHistory(
        chain, Store(), input_messages_key="question", history_messages_key="history"
    )


def trimmed(llm: ChatParrot) -> Runnable[Any, Any]:
    """Only the last messages go into the prompt."""
    trimmer = trim_messages(
        max_tokens=3, strategy="last", token_counter=len, include_system=True, start_on="human"
    )
    return RunnablePassthrough.assign(history=lambda x: trimmer.invoke(x["history"])) | PROMPT | llm


def summarized(llm: ChatParrot) -> Runnable[Any, Any]:
    """What was said becomes a summary, which stands for it."""

    def transcript(x: dict[str, Any]) -> dict[str, str]:
        return {"transcript": get_buffer_string(x["history"])}

    summary = transcript | ask("Distill the chat into one message:\n{transcript}", llm)

    def messages(x: dict[str, Any]) -> list[BaseMessage]:
        about = SystemMessage(f"What was said: {x['summary']}")
        return [about, HumanMessage(x["question"])]

    return RunnablePassthrough.assign(summary=summary) | messages | llm | StrOutputParser()


def follow_ups(llm: ChatParrot) -> Runnable[Any, Any]:
    """An answer, and three questions that the user may want to ask next."""
    answer = PROMPT | llm | StrOutputParser()
    suggest = ask(
        "The answer was: {answer}\nSuggest three short follow-up questions, one per line.", llm
    )

    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.splitlines() if line.strip()]

    return RunnablePassthrough.assign(answer=answer).assign(next=suggest | lines)


CHATS = {
    "RunnableWithMessageHistory": Entry(
        with_message_history, QUESTION, 1, ordered=True, key="session_id"
    ),
    "history and retrieval": Entry(history_and_retrieval, QUESTION, 2, key="session_id"),
    "history trimmed": Entry(trimmed, {**QUESTION, "history": SAID}, 1),
    "history summarized": Entry(summarized, {**QUESTION, "history": SAID}, 2),
    "follow-up questions": Entry(follow_ups, {**QUESTION, "history": SAID}, 2),
}
