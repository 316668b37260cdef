"""Prompt after prompt: chains of one thought, and of several side by side."""

import re
from collections import Counter
from operator import itemgetter
from typing import Any

from langchain_core.output_parsers import CommaSeparatedListOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough, chain
from pydantic import BaseModel

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import REVIEWS

TOPIC = {"topic": "why kettles whistle"}
EMAIL = {"email": "Hello, my order 3 never came. I am disappointed. Ada", "tone": "warm"}


class Sections(BaseModel):
    """The sections of an article."""

    sections: list[str]


def article(llm: ChatParrot) -> Runnable[Any, Any]:
    return (
        RunnablePassthrough.assign(outline=ask("Write an outline on {topic}.", llm))
        .assign(draft=ask("Topic: {topic}\nOutline: {outline}\nWrite the article.", llm))
        .assign(title=ask("Find a title for this article: {draft}", llm))
        .assign(final=ask("Edit the article for clarity.\n# {title}\n{draft}", llm))
        .pick(["title", "final"])
    )


def translated(llm: ChatParrot) -> Runnable[Any, Any]:
    """Into English, answered, and back."""
    return (
        {"english": ask("Translate to English: {question}", llm)}
        | RunnablePassthrough.assign(answer=ask("Answer: {english}", llm))
        | ask("Translate to French: {answer}", llm)
    )


def critique(llm: ChatParrot) -> Runnable[Any, Any]:
    draft = ask("Write a slogan about {topic}.", llm)
    review = ask("What is wrong with this slogan? {draft}", llm)
    revise = ask("Slogan: {draft}\nCritique: {review}\nWrite a better one.", llm)
    return {"draft": draft} | RunnablePassthrough.assign(review=review) | revise


def code_review(llm: ChatParrot) -> Runnable[Any, Any]:
    """The code is taken out of its fence between the steps."""

    def code(text: str) -> str:
        found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
        return found.group(1) if found else text

    write = ask("Write a Python function: {task}", llm) | code
    review = ask("Review this code:\n{code}", llm)
    fix = ask("Code:\n{code}\nReview:\n{review}\nFix it.", llm) | code
    return (
        RunnablePassthrough.assign(code=write)
        .assign(review=review)
        .assign(code=fix)
        .assign(tests=ask("Write tests for:\n{code}", llm))
        .pick(["code", "tests"])
    )


def email(llm: ChatParrot) -> Runnable[Any, Any]:
    read = {
        "kind": ask("What does the sender want? {email}", llm),
        "mood": ask("Which mood is the sender in? {email}", llm),
        "facts": ask("List the facts of this mail: {email}", llm),
        "tone": itemgetter("tone"),
    }
    draft = ask("Reply to a {mood} sender who wants {kind}. Facts: {facts}", llm)
    return (
        read
        | RunnablePassthrough.assign(draft=draft)
        | ask("Make this mail {tone}:\n{draft}", llm)
        | (lambda text: {"subject": text.split(":")[0], "body": text})
    )


def few_shot(llm: ChatParrot) -> Runnable[Any, Any]:
    """Reviews as examples, and a reason for what was said."""
    shots = FewShotChatMessagePromptTemplate(
        examples=[{"text": REVIEWS[0], "label": "mixed"}, {"text": REVIEWS[1], "label": "good"}],
        example_prompt=ChatPromptTemplate.from_messages([("human", "{text}"), ("ai", "{label}")]),
    )
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Label the review."), shots, ("human", "{text}")]
    )
    label = prompt | llm | StrOutputParser() | RunnableLambda(lambda label: label.strip().lower())
    why = ask("Why is this review {label}? {text}", llm)
    return RunnablePassthrough.assign(label=label).assign(why=why)


def brainstorm(llm: ChatParrot) -> Runnable[Any, Any]:
    """A list parsed, and a call for each of its items."""
    names = ask("Products that suit {topic}, separated by commas", llm)
    return (
        names
        | CommaSeparatedListOutputParser()
        | ask("Describe the product {product} in a sentence.", llm).map()
        | "\n".join
        | ask("Choose the best:\n{descriptions}", llm)
    )


def skeleton(llm: ChatParrot) -> Runnable[Any, Any]:
    """Skeleton-of-thought: sections first, then all of them at once."""
    outline = ChatPromptTemplate.from_template("Name the sections of an article on {topic}.")
    write = ask("Article on {topic}. Write the section {section}.", llm)

    def each(x: dict[str, Any]) -> list[dict[str, str]]:
        return [{"topic": x["topic"], "section": name} for name in x["outline"].sections]

    return (
        RunnablePassthrough.assign(outline=outline | llm.with_structured_output(Sections))
        | each
        | write.map()
        | (lambda sections: "\n\n".join(sections))
    )


def self_consistency(llm: ChatParrot) -> Runnable[Any, Any]:
    """Five samples of one prompt, and the answer that most of them have."""
    sample = ask("Think step by step and give the answer boxed: {question}", llm.bind(top_p=0.9))

    def samples(x: dict[str, str]) -> list[str]:
        return sample.batch([x] * 5)

    def vote(answers: list[str]) -> str:
        found = [re.search(r"boxed\{(.+?)\}", answer) for answer in answers]
        return Counter(match.group(1) for match in found if match).most_common(1)[0][0]

    return RunnableLambda(samples) | vote


def chain_of_density(llm: ChatParrot) -> Runnable[Any, Any]:
    """A summary that is made denser three times."""
    first = ask("Summarize: {text}", llm)
    denser = ask("Text: {text}\nSummary: {summary}\nMake it denser.", llm)

    @chain
    def densify(x: dict[str, str]) -> str:
        summary = first.invoke({"text": x["text"]})
        for _ in range(3):
            summary = denser.invoke({"text": x["text"], "summary": summary})
        return summary

    return densify


def debate(llm: ChatParrot) -> Runnable[Any, Any]:
    """Two sides answer each other in turn, and a third decides."""
    sides = {
        side: ask(f"Argue {side} {{topic}}. So far:\n{{said}}", llm) for side in ("for", "against")
    }
    decide = ask("Who has won this debate on {topic}?\n{said}", llm)

    def run(x: dict[str, str]) -> str:
        said: list[str] = []
        for _ in range(2):
            for side, argue in sides.items():
                said.append(f"{side}: " + argue.invoke({**x, "said": "\n".join(said)}))
        return decide.invoke({**x, "said": "\n".join(said)})

    return RunnableLambda(run)


PROMPTING = {
    "article by assign": Entry(article, TOPIC, 4),
    "translated there and back": Entry(translated, {"question": "Pourquoi siffle-t-elle?"}, 3),
    "draft, critique, revise": Entry(critique, TOPIC, 3),
    "code, review, fix": Entry(code_review, {"task": "add two numbers"}, 4),
    "email pipeline": Entry(email, EMAIL, 5),
    "few-shot": Entry(few_shot, {"text": REVIEWS[4]}, 2),
    "brainstorm": Entry(brainstorm, TOPIC, 5),
    "skeleton-of-thought": Entry(skeleton, TOPIC, 4),
    "self-consistency": Entry(self_consistency, {"question": "What is 3 + 4?"}, 5),
    "chain of density": Entry(chain_of_density, {"text": REVIEWS[2]}, 4, ordered=True),
    "debate": Entry(debate, TOPIC, 5, ordered=True),
}
