"""Names that LangChain may change: without one of them a feature is missing, not the package."""

import subprocess
import sys
from types import FunctionType

import pytest
from langchain_core.prompts import ChatPromptTemplate

from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.langchain.scope import _thread

HIDDEN = """
import langchain_core.language_models.chat_models as chat_models
del chat_models._ChatModelBinding
from langchain_core.prompts import ChatPromptTemplate
from parrot_integrations.langchain import ChatParrot, compile
chain = ChatPromptTemplate.from_template("Say {x}") | ChatParrot(base_url="http://127.0.0.1:9")
print(compile(chain).explain("it"))
"""


def test_the_package_does_without_the_binding_of_models() -> None:
    run = subprocess.run([sys.executable, "-c", HIDDEN], capture_output=True, text=True, check=True)
    assert "1 planned call," in run.stdout


def test_a_graph_s_run_without_its_runtime_has_no_thread() -> None:
    assert _thread({}, {"__pregel_renamed": object()}) is None


def test_a_formatter_of_documents_that_is_not_recognized_is_a_break_that_says_so() -> None:
    combining = pytest.importorskip("langchain_classic.chains.combine_documents")
    llm = ChatParrot(base_url="http://127.0.0.1:9")
    chain = combining.create_stuff_documents_chain(
        llm, ChatPromptTemplate.from_template("{context}")
    )
    format_docs = chain.bound.first.bound.mapper.steps__["context"]
    assert isinstance(format_docs.func, FunctionType)
    format_docs.func.__qualname__ = "another_version.<locals>.format_docs"
    told = compile(chain).explain({"context": []})
    assert "formats documents in a way that is not recognized" in told
