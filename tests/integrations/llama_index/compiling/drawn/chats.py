"""Chat engines, over several turns."""

from collections.abc import Callable
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
)
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer, Memory

from tests.integrations.llama_index.compiling.drawn import engines, retrieving, synthesizers, texts
from tests.integrations.llama_index.compiling.drawn.case import (
    MODES,
    Case,
    World,
    aconsumed,
    consumed,
)


def memory(world: World) -> BaseMemory:
    history = [
        ChatMessage(texts.sentence(world), role=role)
        for _ in range(world.rng.randint(0, 2))
        for role in ("user", "assistant")
    ]
    kind = Memory if world.chance(0.5) else ChatMemoryBuffer
    return kind.from_defaults(chat_history=history, token_limit=world.rng.choice([200, 3000]))


def chatting(world: World, engine: BaseChatEngine) -> Case:
    turns = [texts.question(world) for _ in range(world.rng.randint(1, 3))]
    streaming = world.chance(0.35)

    def ask(subject: Any) -> Any:
        say = subject.stream_chat if streaming else subject.chat
        return [[_whole(consumed(say(turn))) for turn in turns], subject.chat_history]

    async def aask(subject: Any) -> Any:
        say = subject.astream_chat if streaming else subject.achat
        said = [_whole(await aconsumed(await say(turn))) for turn in turns]
        return [said, subject.chat_history]

    return Case(engine, ask, aask, world.rng.choice(MODES), concurrent=True)


def _whole(answer: Any) -> Any:
    """A stream's text, however a thread between cuts it."""
    return ["".join(answer[0]), *answer[1:]] if isinstance(answer, list) else answer


def condense_question(world: World) -> Case:
    engine = CondenseQuestionChatEngine.from_defaults(
        query_engine=engines.over_retriever(world, streaming=False, output_cls=None),
        memory=memory(world),
        llm=world.llm,
        verbose=world.chance(0.5),
    )
    return chatting(world, engine)


def _options(world: World) -> dict[str, Any]:
    synthesizers.window(world, "refine")
    options: dict[str, Any] = {
        "retriever": retrieving.retriever(world, texts.nodes(world)),
        "memory": memory(world),
        "llm": world.llm,
        "node_postprocessors": retrieving.postprocessors(world),
    }
    if world.chance(0.5):
        options["system_prompt"] = texts.PREAMBLE
    return options


def condense_plus_context(world: World) -> Case:
    options = _options(world)
    options["skip_condense"] = world.chance(0.2)
    options["verbose"] = world.chance(0.3)
    return chatting(world, CondensePlusContextChatEngine.from_defaults(**options))


def context(world: World) -> Case:
    return chatting(world, ContextChatEngine.from_defaults(**_options(world)))


CHATS: dict[str, Callable[[World], Case]] = {
    "CondenseQuestionChatEngine": condense_question,
    "CondensePlusContextChatEngine": condense_plus_context,
    "ContextChatEngine": context,
}
