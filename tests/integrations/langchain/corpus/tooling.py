"""Tools, agents and SQL: what the model says is done, and what came of it is said to the model."""

from operator import itemgetter
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentState,
    ModelCallLimitMiddleware,
    ModelRequest,
    SummarizationMiddleware,
    before_model,
    dynamic_prompt,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough, chain
from langgraph.checkpoint.memory import InMemorySaver

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import get_weather, multiply, run_sql, search_notes

TOOLS = {tool.name: tool for tool in (get_weather, search_notes, multiply)}
SCHEMA = "CREATE TABLE orders (id INTEGER, customer TEXT, total REAL)"
WEATHER = {"messages": [HumanMessage("What is the weather in Oslo?")]}


def tool_loop(llm: ChatParrot) -> Runnable[Any, Any]:
    """The loop by hand: as long as the model asks for tools, they are run."""
    with_tools = llm.bind_tools(list(TOOLS.values()))

    @chain
    def loop(question: str) -> str:
        messages: list[BaseMessage] = [HumanMessage(question)]
        for _ in range(5):
            answer = with_tools.invoke(messages)
            messages.append(answer)
            if not answer.tool_calls:
                break
            for call in answer.tool_calls:
                messages.append(TOOLS[call["name"]].invoke(call))
        return messages[-1].text

    return loop


def tool_chain(llm: ChatParrot) -> Runnable[Any, Any]:
    """One call of a tool in the middle of a chain."""

    def call(message: AIMessage) -> str:
        wanted = message.tool_calls[0]
        return str(TOOLS[wanted["name"]].invoke(wanted["args"]))

    found = llm.bind_tools([multiply], tool_choice="multiply") | call
    return {"found": itemgetter("question") | found, "question": itemgetter("question")} | ask(
        "Question: {question}\nTool gave: {found}\nAnswer.", llm
    )


def agent(llm: ChatParrot) -> Runnable[Any, Any]:
    return create_agent(llm, [get_weather, search_notes], system_prompt="You are a concierge.")


def agent_with_middleware(llm: ChatParrot) -> Runnable[Any, Any]:
    """A prompt that depends on the state, the last messages only, and a limit."""

    @dynamic_prompt
    def prompt(request: ModelRequest) -> str:
        return f"You are a concierge. {len(request.messages)} messages so far."

    @before_model
    def note(state: AgentState, runtime: Any) -> dict[str, Any] | None:
        return None

    limit = ModelCallLimitMiddleware(run_limit=4)
    return create_agent(llm, [get_weather], middleware=[prompt, note, limit])


def agent_with_memory(llm: ChatParrot) -> Runnable[Any, Any]:
    """A thread of its own, whose old messages are summed up."""
    shorten = SummarizationMiddleware(model=llm, trigger=("messages", 4), keep=("messages", 2))
    return create_agent(llm, [get_weather], middleware=[shorten], checkpointer=InMemorySaver())


def sql(llm: ChatParrot) -> Runnable[Any, Any]:
    write = ask("Write a SQLite query.\nSchema: {schema}\nQuestion: {question}", llm)
    answer = ask("Question: {question}\nQuery: {query}\nResult: {result}\nAnswer it.", llm)
    return (
        RunnablePassthrough.assign(schema=lambda _: SCHEMA)
        | RunnablePassthrough.assign(query=write | (lambda query: query.strip().rstrip(";")))
        | RunnablePassthrough.assign(result=itemgetter("query") | RunnableLambda(run_sql))
        | answer
    )


def checked_sql(llm: ChatParrot) -> Runnable[Any, Any]:
    """Tables are chosen first, and the query is looked over before it runs."""
    tables = ask("Which tables does this need? {question}", llm)
    write = ask("Write a SQLite query.\nTables: {tables}\nQuestion: {question}", llm)
    check = ask("Correct the SQLite query, or repeat it: {draft}", llm)
    prompt = ChatPromptTemplate.from_template("Question: {question}\nResult: {result}\nAnswer it.")
    return (
        RunnablePassthrough.assign(tables=tables)
        .assign(draft=write)
        .assign(query=check)
        .assign(result=lambda x: run_sql(x["query"]))
        | prompt
        | llm
        | StrOutputParser()
    )


CONVERSATION = {
    "messages": [
        HumanMessage("Good morning!"),
        AIMessage("Good morning. Where do you want to go?"),
        HumanMessage("To Norway."),
        AIMessage("When?"),
        *WEATHER["messages"],
    ]
}
TOOLING = {
    "tool loop by hand": Entry(tool_loop, "What is the weather in Oslo?", 2, ordered=True),
    "a tool in a chain": Entry(tool_chain, {"question": "What is 17 times 23?"}, 2),
    "create_agent": Entry(agent, WEATHER, 2, ordered=True),
    "agent with middleware": Entry(agent_with_middleware, WEATHER, 2, ordered=True),
    "agent that sums up its thread": Entry(
        agent_with_memory, CONVERSATION, 4, ordered=True, key="thread_id"
    ),
    "SQL": Entry(sql, {"question": "Who bought the most?"}, 2),
    "SQL, checked": Entry(checked_sql, {"question": "Who bought the most?"}, 4),
}
