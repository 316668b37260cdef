"""Each kind of step that people write: planned as far as it says here, and the result is the same."""

import json
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import CommaSeparatedListOutputParser, StrOutputParser
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

from parrot_integrations.langchain import (
    ChatParrot,
    compile,
    join_texts,
    semantic_transform,
    transforms,
)
from parrot_integrations.planning.session import PlannedSession
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.watching import submitting

classic = pytest.importorskip("langchain_classic.chains")

Build = Callable[[ChatParrot], Runnable[Any, Any]]
Case = tuple[Build, Any, int]
"""How to build it, the input, and how many calls it makes: all are planned and claimed."""

EXAMPLES = [{"word": "hot", "other": "cold"}, {"word": "up", "other": "down"}]
DOCS = [Document("One.", metadata={"page": 1}), Document("Two.", metadata={"page": 2})]
PAGE = PromptTemplate.from_template("[{page}] {page_content}")


def few_shot(llm: ChatParrot) -> Runnable[Any, Any]:
    example = PromptTemplate.from_template("{word}: {other}")
    prompt = FewShotPromptTemplate(
        examples=EXAMPLES, example_prompt=example, prefix="{kind}:", suffix="{word}:"
    )
    return prompt | llm | StrOutputParser()


def few_shot_chat(llm: ChatParrot) -> Runnable[Any, Any]:
    example = ChatPromptTemplate.from_messages([("human", "{word}"), ("ai", "{other}")])
    shots = FewShotChatMessagePromptTemplate(examples=EXAMPLES, example_prompt=example)
    prompt = ChatPromptTemplate.from_messages([("system", "Opposites"), shots, ("human", "{word}")])
    return prompt | llm | StrOutputParser()


def conversation(llm: ChatParrot) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You are {who}."),
            MessagesPlaceholder("history", n_messages=2),
            ("human", "{q}"),
        ]
    )
    return prompt.partial(who="a bird") | llm | StrOutputParser()


def nested(llm: ChatParrot) -> Runnable[Any, Any]:
    inner = ChatPromptTemplate.from_messages([("human", "First {a}"), ("ai", "Yes")])
    parts = [{"type": "text", "text": "Part {a} "}, {"type": "text", "text": "and {b}"}]
    prompt = ChatPromptTemplate.from_messages([inner, ("human", parts), HumanMessage("End")])
    return prompt | llm | StrOutputParser()


def mustache(llm: ChatParrot) -> Runnable[Any, Any]:
    first = ChatPromptTemplate.from_template("Name {{x}}", template_format="mustache")
    second = ChatPromptTemplate.from_template(
        "Describe {{{y}}}, {{& y}}!", template_format="mustache"
    )
    return {"y": first | llm | StrOutputParser()} | second | llm | StrOutputParser()


def escaping(llm: ChatParrot) -> Runnable[Any, Any]:
    """The first answer is escaped for HTML, which only the run knows."""
    second = ChatPromptTemplate.from_template("Describe {{y}}", template_format="mustache")
    return {"y": ask("Name {x}", llm)} | second | llm | StrOutputParser()


def branching(llm: ChatParrot) -> Runnable[Any, Any]:
    draft = ask("Draft {x}", llm)
    long = ask("Shorten {draft}", llm) | (lambda text: {"draft": text}) | ask("Polish {draft}", llm)
    choice = RunnableBranch((lambda value: "zzz" in value["draft"], draft), long)
    return {"draft": draft} | choice | ask("Sign {x}", llm)


def configured(llm: ChatParrot) -> Runnable[Any, Any]:
    model = llm.configurable_fields(max_tokens=ConfigurableField(id="length"))
    prompt = ChatPromptTemplate.from_template("Joke on {x}").configurable_alternatives(
        ConfigurableField(id="kind"),
        default_key="joke",
        poem=PromptTemplate.from_template("Poem {x}"),
    )
    chain = prompt | model | StrOutputParser()
    chosen = chain.with_config(configurable={"kind": "poem", "length": 3})
    return {"x": chain} | chosen


def steady(llm: ChatParrot) -> Runnable[Any, Any]:
    retried = ask("Try {x}", llm).with_retry(stop_after_attempt=2)
    return {"x": retried} | ask("Keep {x}", llm).with_fallbacks([ask("Else {x}", llm)])


def falling_back(llm: ChatParrot) -> Runnable[Any, Any]:
    """The main chain fails; what comes after it was planned on it, in vain."""
    broken = ask("FAIL {x}", llm).with_fallbacks([ask("Else {x}", llm)])
    return {"x": broken} | ask("Then {x}", llm)


def lambda_first(llm: ChatParrot) -> Runnable[Any, Any]:
    return (
        RunnableLambda(lambda x: {"a": x, "b": x[::-1]})
        | RunnableParallel(a=ask("A {a}", llm), b=ask("B {b}", llm))
        | ask("Both {a} {b}", llm)
    )


def lambdas_in_a_map(llm: ChatParrot) -> Runnable[Any, Any]:
    each = ask("Draw {x}", llm) | (lambda text: {"y": text.upper()}) | ask("Paint {y}", llm)
    return {"all": each.map() | join_texts("; ")} | ask("Show {all}", llm)


def retrieval(llm: ChatParrot) -> Runnable[Any, Any]:
    found = RunnableLambda(lambda q: [q, q + "?"]) | (lambda texts: " ".join(texts))
    both = {"context": found, "question": RunnablePassthrough()}
    answer = both | ask("{context}: {question}", llm)
    return {"answer": answer} | ask("Check {answer}", llm)


def listing(llm: ChatParrot) -> Runnable[Any, Any]:
    """A parser that planning can't run, and a map over what it gives."""
    names = ChatPromptTemplate.from_template("y ,x {x}") | llm | CommaSeparatedListOutputParser()
    return names | ask("Tell of {name}", llm).map() | "\n".join | ask("Sum up {all}", llm)


def routed(llm: ChatParrot) -> Runnable[Any, Any]:
    routes = RouterRunnable({"a": ask("A {x}", llm), "b": ask("B {x}", llm)})
    return {"key": itemgetter("key"), "input": itemgetter("x")} | routes


def stuffed(llm: ChatParrot) -> Runnable[Any, Any]:
    from langchain_classic.chains.combine_documents import create_stuff_documents_chain

    prompt = ChatPromptTemplate.from_template("Sum up {context} for {who}")
    return create_stuff_documents_chain(llm, prompt, document_prompt=PAGE) | ask("Next {x}", llm)


def summarize(kind: str, **options: Any) -> Build:
    def build(llm: ChatParrot) -> Runnable[Any, Any]:
        from langchain_classic.chains.summarize import load_summarize_chain

        return load_summarize_chain(llm, chain_type=kind, **options)

    return build


def llm_chain(llm: ChatParrot) -> Runnable[Any, Any]:
    with pytest.warns(Warning, match="deprecated"):
        return classic.LLMChain(
            llm=llm.bind(stop=["z"]), prompt=PromptTemplate.from_template("Go {x}")
        )


def structured(llm: ChatParrot) -> Runnable[Any, Any]:
    """What the parser makes of the first answer, only the run knows."""
    schema = {"title": "T", "type": "object", "properties": {"y": {"type": "string"}}}
    first = ChatPromptTemplate.from_template('}}"{x}":"y"{{')
    return first | llm.with_structured_output(schema) | ask("Now {y}", llm)


def with_tools(llm: ChatParrot) -> Runnable[Any, Any]:
    def search(query: str) -> str:
        """Searches."""
        return query

    bound = llm.model_copy(update={"n": 1}).bind_tools([search], tool_choice="auto")
    return ChatPromptTemplate.from_template("Find {x}") | bound | StrOutputParser()


def after_tools(llm: ChatParrot) -> Runnable[Any, Any]:
    asked = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "a"}, "id": "call-a"}])
    answered = [HumanMessage("Find"), asked, ToolMessage("found", tool_call_id="call-a")]
    prompt = ChatPromptTemplate.from_messages([*answered, ("human", "And {x}?")])
    return prompt | llm | StrOutputParser()


@semantic_transform(transforms.template("[{text}] "), transforms.strip())
def bracketed(text: str) -> str:
    return f"[{text}]"


@semantic_transform(transforms.json_field("items", 0))
def first_item(text: str) -> str:
    return str(json.loads(text)["items"][0])


def declared(llm: ChatParrot) -> Runnable[Any, Any]:
    """The engine reverses its prompt."""
    listed = ask('}} ]{x} ,{x}[ :"smeti" {{', llm) | first_item
    return {"y": listed | bracketed} | ask("Now {y}", llm)


CASES: dict[str, Case] = {
    "few-shot": (few_shot, {"word": "left", "kind": "Opposites"}, 1),
    "few-shot messages": (few_shot_chat, {"word": "left"}, 1),
    "history": (
        conversation,
        {"history": [AIMessage("no"), ("human", "Hello"), AIMessage("Good day")], "q": "Who?"},
        1,
    ),
    "nested messages": (nested, {"a": 1, "b": [2, "x"]}, 1),
    "mustache": (mustache, {"x": "<b> & co"}, 2),
    "mustache that escapes an answer": (escaping, {"x": "a<b"}, 2),
    "format specification": (lambda llm: ask("{x:>5}{y!r}", llm), {"x": 1, "y": "z"}, 1),
    "branch": (branching, {"x": "it"}, 4),
    "configurables": (configured, "ducks", 2),
    "retry and fallbacks": (steady, {"x": "it"}, 2),
    "lambda first": (lambda_first, "abc", 3),
    "lambdas in a map": (lambdas_in_a_map, [{"x": "a"}, {"x": "b"}, {"x": "c"}], 7),
    "retrieval": (retrieval, "what", 2),
    "a list parsed": (listing, "it", 4),
    "declared functions": (declared, {"x": '"ba"'}, 2),
    "structured output": (structured, {"x": "it"}, 2),
    "tools": (with_tools, {"x": "it"}, 1),
    "messages of tools": (after_tools, {"x": "it"}, 1),
    "router": (routed, {"key": "b", "x": "it"}, 1),
    "stuffed documents": (stuffed, {"context": DOCS, "who": "me"}, 2),
    "classic stuff": (summarize("stuff"), {"input_documents": DOCS}, 1),
    "classic map-reduce": (
        summarize("map_reduce", return_intermediate_steps=True),
        {"input_documents": DOCS},
        3,
    ),
    "classic refine": (summarize("refine"), DOCS, 2),
    "classic LLM chain": (llm_chain, {"x": "on"}, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_what_people_write_is_planned_and_claimed(name: str, scripted_url: str) -> None:
    build, value, calls = CASES[name]
    llm = ChatParrot(base_url=scripted_url, temperature=0)
    sessions: list[PlannedSession] = []
    original = build(llm)
    expected = original.invoke(value)
    assert submitting(original, sessions.append).invoke(value) == expected
    (session,) = sessions
    assert session.final is not None
    counts = session.final
    assert (counts.planned, counts.claimed, counts.unplanned) == (calls, calls, 0)


def test_a_failed_prediction_is_no_answer_and_the_fallback_runs(scripted_url: str) -> None:
    llm = ChatParrot(base_url=scripted_url, temperature=0, max_retries=0)
    sessions: list[PlannedSession] = []
    original = falling_back(llm)
    compiled = submitting(original, sessions.append)
    assert compiled.invoke({"x": "it"}) == original.invoke({"x": "it"})
    assert sessions[0].final is not None
    counts = sessions[0].final
    claimed = counts.claimed, counts.unplanned
    assert claimed in [(2, 1), (3, 0)], "the call that fails is claimed if that is asked for before"


def test_what_a_break_says_can_be_done(scripted_url: str) -> None:
    llm = ChatParrot(base_url=scripted_url)
    told = compile(branching(llm)).explain({"x": "it"})
    assert "RunnableBranch" in told
    assert ": decides by conditions of yours" in told
    told = compile(escaping(llm)).explain({"x": "it"})
    assert "escapes 'y' for HTML.\n      Write {{{y}}} instead." in told


@semantic_transform(transforms.strip())
def not_stripping(text: str) -> str:
    return text.upper()


def test_a_wrong_declaration_costs_time_only(scripted_url: str) -> None:
    llm = ChatParrot(base_url=scripted_url, temperature=0)
    sessions: list[PlannedSession] = []
    original = ask("Say {x}", llm) | not_stripping | ask("Now {y}", llm)
    assert submitting(original, sessions.append).invoke("it") == original.invoke("it")
    assert sessions[0].final is not None
    assert (sessions[0].final.claimed, sessions[0].final.unplanned) == (1, 1)
