"""Documents, questions and templates, drawn at random."""

from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
)
from llama_index.core.schema import Document, NodeWithScore, TextNode

from tests.integrations.llama_index.compiling.answers import WORDS
from tests.integrations.llama_index.compiling.drawn.case import World

PREAMBLE = "You are a careful clerk of the harbour. Use what is given and nothing else. " * 2
_ODD = ["{context_str}", "{x}", "}}", '"quoted"', "new\nline", "\n\n", "  far  ", "café ☕", "\\n"]
FAILING = 0.008


def sentence(world: World) -> str:
    words = world.rng.choices(WORDS, k=world.rng.randint(3, 12))
    if world.chance(0.1):
        words.insert(world.rng.randrange(len(words)), world.rng.choice(_ODD))
    return " ".join(words).capitalize() + "."


def text(world: World, longest: int = 160) -> str:
    """Of up to so many words, nearly; now and then empty, or of a kind that fails."""
    if world.chance(0.05):
        return world.rng.choice(["", " \n", "word"])
    count = max(1, world.rng.randint(0, longest) // 8)
    sentences = [sentence(world) for _ in range(count)]
    if world.chance(FAILING):
        sentences.insert(world.rng.randrange(count), "FAIL now.")
    return world.rng.choice([" ", "\n", "\n\n"]).join(sentences)


def texts(world: World, most: int = 6, longest: int = 200) -> list[str]:
    found = [text(world, longest) for _ in range(world.rng.randint(1, most))]
    if world.chance(0.15):  # equal texts make equal prompts
        found.append(found[0])
    return found


def question(world: World) -> str:
    return f"{world.rng.choice(['What', 'Who', 'Where'])} is the {sentence(world)[:-1].lower()}?"


def metadata(world: World) -> dict[str, Any]:
    return {"page": world.rng.randint(1, 9)} if world.chance(0.4) else {}


def documents(world: World, most: int = 4, longest: int = 160) -> list[Document]:
    return [
        Document(text=each, id_=f"doc-{number}", metadata=metadata(world))
        for number, each in enumerate(texts(world, most, longest))
    ]


def nodes(world: World, most: int = 6, longest: int = 200) -> list[TextNode]:
    return [
        TextNode(text=each, id_=f"node-{number}", metadata=metadata(world))
        for number, each in enumerate(texts(world, most, longest))
    ]


def scored(found: list[TextNode]) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=1 / (n + 1)) for n, node in enumerate(found)]


_QA = "Context:\n{context_str}\nQuestion: {query_str}\nAnswer: "
_REFINE = "Question: {query_str}\nSo far: {existing_answer}\nMore: {context_msg}\nBetter: "
_BODIES = {"text_qa_template": _QA, "refine_template": _REFINE, "summary_template": _QA}


def templates(world: World, *names: str) -> dict[str, BasePromptTemplate]:
    """Own templates for some of what is asked, with a preamble in common."""
    if world.chance(0.5):
        return {}
    return {name: _template(world, _BODIES[name]) for name in names if world.chance(0.7)}


def _template(world: World, body: str) -> BasePromptTemplate:
    kind = world.rng.choice(["string", "chat", "shots", "rich", "partial", "mapped", "function"])
    if kind == "chat":
        roles = [("system", PREAMBLE), ("user", body)]
        return ChatPromptTemplate.from_messages(roles)
    if kind == "shots":
        return ChatPromptTemplate(
            message_templates=[
                ChatMessage(PREAMBLE, role="system"),
                ChatMessage("What is 2 and 2? {{}}", role="user"),
                ChatMessage("4", role="assistant"),
                ChatMessage(body, role="user"),
            ]
        )
    if kind == "rich":
        return RichPromptTemplate(PREAMBLE + body.replace("{", "{{ ").replace("}", " }}"))
    if kind == "partial":
        return PromptTemplate(PREAMBLE + "{tone}\n" + body).partial_format(tone="Be brief.")
    if kind == "mapped":
        renamed = (PREAMBLE + body).replace("{query_str}", "{my_question}")
        return PromptTemplate(renamed, template_var_mappings={"query_str": "my_question"})
    if kind == "function":
        return PromptTemplate(PREAMBLE + body, function_mappings={"query_str": _shouted(world)})
    return PromptTemplate(PREAMBLE + body)


def _shouted(world: World) -> Any:
    """A user's function; packing formats templates without a question too."""

    def shouted(**kwargs: Any) -> str:
        world.calls.append(f"shouted {kwargs.get('query_str')}")
        return f"{kwargs.get('query_str')}!"

    return shouted
