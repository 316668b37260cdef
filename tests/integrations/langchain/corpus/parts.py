"""What the chains are about: a retriever, documents, tools and a database, all deterministic."""

import asyncio
import sqlite3
import time
from typing import Any, ClassVar

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool

NOTES = [
    "Refunds are paid within fourteen days to the card that was charged.",
    "Orders above fifty euros ship for free inside the European Union.",
    "Remote work is allowed up to three days a week after the probation period.",
    "Expense reports need a receipt for everything above twenty euros.",
    "The warranty of the Model T kettle covers two years, its cord excluded.",
    "Descale the kettle every second month with citric acid, never with vinegar.",
    "Parental leave is sixteen weeks, of which two must be taken at once.",
    "A lost parcel is declared with the carrier ten days after it was shipped.",
    "The Model T kettle boils a litre in two minutes and forty seconds.",
    "Travel is booked through the portal; trains are preferred below 600 km.",
]
DOCUMENTS = [Document(page_content=note, metadata={"source": i}) for i, note in enumerate(NOTES)]
REVIEWS = [
    "Boils fast, but the lid came off after a month.",
    "Lovely colour. My mother wants one too!",
    "Arrived broken, and support took nine days to answer.",
    "It does what it should, nothing more.",
    "The cord is too short for my kitchen.",
    "Third one that I buy, the others still work.",
    "Refund came within a week, thank you.",
    "Loud as a train, sent it back.",
]


class Notes(BaseRetriever):
    """Finds the notes that share most words with the query; it takes `delay` seconds."""

    delay: ClassVar[float] = 0.0
    k: int = 3

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        time.sleep(self.delay)
        return self._nearest(query)

    async def _aget_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        await asyncio.sleep(self.delay)
        return self._nearest(query)

    def _nearest(self, query: str) -> list[Document]:
        words = set(query.lower().split())
        shared = {d: len(words & set(n.lower().split())) for d, n in enumerate(NOTES)}
        return [DOCUMENTS[d] for d in sorted(shared, key=lambda d: (-shared[d], d))[: self.k]]


def format_docs(docs: list[Document]) -> str:
    return "\n\n".join(doc.page_content for doc in docs)


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}, {len(city) + 12} degrees."


@tool
def search_notes(query: str) -> str:
    """Search the company's notes."""
    return format_docs(Notes().invoke(query))


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def run_sql(query: str) -> str:
    """What a query gives on a small shop's data."""
    with sqlite3.connect(":memory:") as shop:
        shop.execute("CREATE TABLE orders (id INTEGER, customer TEXT, total REAL)")
        rows = [(1, "Ada", 19.5), (2, "Grace", 80.0), (3, "Ada", 42.25)]
        shop.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
        found = str(shop.execute(query).fetchall())
    shop.close()
    return found
