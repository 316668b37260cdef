"""Prompts know what they were made of, exactly or not at all, and nobody sees that they do."""

import copy
import json
import pickle
import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    PromptType,
    RichPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TREE_SUMMARIZE_PROMPT_SEL
from llama_index.core.types import BaseOutputParser
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.span_handlers import NullSpanHandler
from pydantic import BaseModel

from parrot_backend.wire.protocol import SITE_HEADER
from parrot_integrations.llama_index import Parrot
from parrot_integrations.llama_index.segments import Rendered, Value, carried, site_of
from tests.integrations.replies import Reply, Replying, events, replying

LLM = Parrot(base_url="http://127.0.0.1:9", model="m", context_window=1000)


def of_prompt(prompt: BasePromptTemplate, llm: Parrot = LLM, /, **variables: Any) -> Rendered:
    text = llm._get_prompt(prompt, **variables)
    rendered = carried(text)
    assert rendered is not None
    assert joined(rendered) == [text]
    return rendered


def of_messages(prompt: BasePromptTemplate, llm: Parrot = LLM, /, **variables: Any) -> Rendered:
    messages = llm._get_messages(prompt, **variables)
    rendered = carried(messages)
    assert rendered is not None
    assert joined(rendered) == [message.content or "" for message in messages]
    return rendered


def joined(rendered: Rendered) -> list[str]:
    return [
        "".join(piece.text if isinstance(piece, Value) else piece for piece in pieces)
        for pieces in rendered.messages
    ]


ASKED = ("Of ", Value("text", "a {b}"), ": ", Value("ask", "why?"))


def test_a_template() -> None:
    prompt = PromptTemplate("Of {text}: {ask}")
    assert of_prompt(prompt, text="a {b}", ask="why?").messages == (ASKED,)
    assert of_messages(prompt, text="a {b}", ask="why?").messages == (ASKED,)


def test_partial_and_renamed_variables_and_those_that_are_missing() -> None:
    prompt = PromptTemplate(
        "Of {text}: {ask} {other}", template_var_mappings={"context_str": "text"}
    ).partial_format(ask="why?")
    rendered = of_prompt(prompt, context_str="a {b}")
    assert rendered.messages == ((*ASKED, " {other}"),)


def test_a_chat_template() -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be {how}."), ("user", "Of {text}: {ask}"), ("assistant", "No.")]
    )
    rendered = of_messages(prompt, how="", text="a {b}", ask="why?")
    assert rendered.messages == (("Be ", Value("how", ""), "."), ASKED, ("No.",))


def test_blocks_of_text_are_lines_and_other_blocks_are_not_in_pieces() -> None:
    blocks = [TextBlock(text="{a}"), TextBlock(text="b")]
    picture = [TextBlock(text="{a}"), ImageBlock(url="http://localhost/x.png")]
    prompt = ChatPromptTemplate(
        [ChatMessage(role="user", blocks=blocks), ChatMessage(role="user", blocks=picture)]
    )
    rendered = carried(LLM._get_messages(prompt, a="1"))
    assert rendered is not None
    assert rendered.messages == ((Value("a", "1"), "\nb"), ())


def test_a_selector_gives_what_it_selects() -> None:
    chat = ChatPromptTemplate.from_messages([("user", "Of {text}: {ask}")])
    prompt = SelectorPromptTemplate(
        PromptTemplate("no"), [(lambda llm: llm.metadata.is_chat_model, chat)]
    )
    assert of_messages(prompt, text="a {b}", ask="why?").messages == (ASKED,)
    selected = DEFAULT_TREE_SUMMARIZE_PROMPT_SEL.partial_format(query_str="Q")
    _, user = of_messages(selected, context_str="C").messages
    assert [piece for piece in user if isinstance(piece, Value)] == [
        Value("context_str", "C"),
        Value("query_str", "Q"),
    ]


def test_a_rich_template() -> None:
    prompt = RichPromptTemplate("Of {{ text }}: {{ask}}")
    assert of_messages(prompt, text="a {b}", ask="why?").messages == (ASKED,)
    assert of_prompt(prompt, text="a {b}", ask="why?").messages == (ASKED,)
    chat = RichPromptTemplate(
        '{% chat role="system" %}\nBe {{ how }}.\n{% endchat %}\n'
        '{% chat role="user" %}Of {{ text }}: {{ ask }}{% endchat %}'
    )
    system, user = of_messages(chat, how="good", text="a {b}", ask="why?").messages
    assert Value("how", "good") in system
    assert user == ASKED


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in text %}{{ x }}{% endfor %}",
        "{{ text | upper }}",
        "{{ text }}{# a note #}",
        '{% for x in text %}{% chat role="user" %}{{ text }}{% endchat %}{% endfor %}',
    ],
)
def test_a_rich_template_that_computes_is_one_piece(template: str) -> None:
    rendered = of_messages(RichPromptTemplate(template), text="ab")
    assert all(len(pieces) == 1 and isinstance(pieces[0], str) for pieces in rendered.messages)


def test_functions_are_called_once_and_what_they_give_is_one_piece() -> None:
    called: list[str] = []

    def shout(**variables: Any) -> str:
        called.append(variables["text"])
        return "WHY?"

    prompt = PromptTemplate("Of {text}: {ask}", function_mappings={"ask": shout})
    assert of_prompt(prompt, text="a").messages == (("Of a: WHY?",),)
    assert called == ["a"]


def test_objects_are_written_once_by_their_own_code() -> None:
    class Written:
        times = 0

        def __str__(self) -> str:
            self.times += 1
            return f"written {self.times}"

    value = Written()
    assert of_prompt(PromptTemplate("{a}!"), a=value).messages == (("written 1!",),)
    assert value.times == 1
    assert of_prompt(PromptTemplate("{a}!"), a=["x\n"]).messages == ((Value("a", "['x\\n']"), "!"),)


def test_a_template_of_another_kind_is_one_piece() -> None:
    class Louder(PromptTemplate):
        def format(self, *args: Any, **kwargs: Any) -> str:
            return super().format(*args, **kwargs).upper()

    prompt = Louder("Of {text}")
    assert of_prompt(prompt, text="A").messages == (("OF A",),)


class Json(BaseOutputParser):
    """Says behind the prompt what is wanted."""

    def parse(self, output: str) -> Any:
        return output

    def format(self, query: str) -> str:
        return query + "\n\nUse {json}."


class Twice(Json):
    def format(self, query: str) -> str:
        return query + query


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_the_llm_puts_around_it_is_literal() -> None:
    llm = LLM.model_copy(
        update={
            "system_prompt": "Be good.",
            "query_wrapper_prompt": PromptTemplate("<{query_str}>"),
            "output_parser": Json(),
        }
    )
    prompt = PromptTemplate("Of {text}: {ask}")
    (pieces,) = of_prompt(prompt, llm, text="a {b}", ask="why?").messages
    assert pieces == ("<Be good.\n\nOf ", *ASKED[1:], "\n\nUse {json}.>")
    system, user = of_messages(prompt, llm, text="a {b}", ask="why?").messages
    assert (system, user) == (("Be good.",), (*ASKED, "\n\nUse {json}."))
    own = PromptTemplate("Of {text}: {ask}", output_parser=Json())
    (user,) = of_messages(own, text="a {b}", ask="why?").messages
    assert user == (*ASKED, "\n\nUse {json}.")


def test_what_is_rewritten_is_one_piece() -> None:
    prompt = PromptTemplate("Of {text}", output_parser=Twice())
    assert of_prompt(prompt, text="a").messages == (("Of aOf a",),)
    llm = LLM.model_copy(update={"completion_to_prompt": str.upper})
    assert of_prompt(PromptTemplate("Of {text}"), llm, text="a").messages == (("OF A",),)
    chat = ChatPromptTemplate.from_messages([("user", "Of {text}"), ("user", "{text}")])
    assert of_prompt(chat, text="a").messages == (("user: Of a\nuser: a\nassistant: ",),)


def test_messages_that_were_changed_afterwards_are_told_as_they_are() -> None:
    messages = LLM._get_messages(PromptTemplate("Of {text}"), text="a")
    messages.append(ChatMessage("and?"))
    rendered = carried(messages)
    assert rendered is not None
    assert joined(rendered) == ["Of a", "and?"]


_TEXTS = st.text("ab{}%# \n", max_size=8)


@given(st.text("ab{} \n", max_size=16), _TEXTS, _TEXTS)
def test_pieces_are_the_text_whatever_is_in_it(template: str, a: str, b: str) -> None:
    of_prompt(PromptTemplate(template), a=a, b=b)
    of_messages(ChatPromptTemplate.from_messages([("user", template)]), a=a, b=b)


@given(st.lists(st.sampled_from(["{{ a }}", "{{b}}", *string.whitespace[:2], "x"])), _TEXTS, _TEXTS)
def test_so_are_those_of_rich_templates(template: list[str], a: str, b: str) -> None:
    of_messages(RichPromptTemplate("".join(template) or "x"), a=a, b=b)


# Nobody sees it


def test_what_keeps_or_copies_a_prompt_gets_its_text_alone() -> None:
    prompt = PromptTemplate("{a}", function_mappings={"a": lambda **_: "unpicklable"})
    for rendered in (LLM._get_prompt(prompt), LLM._get_messages(prompt)):
        copies = [
            copy.copy(rendered),
            copy.deepcopy(rendered),
            pickle.loads(pickle.dumps(rendered)),
        ]
        for each in copies:
            assert each == rendered
            assert type(each) in (str, list)
            assert carried(each) is None


def test_plain_prompts_have_no_pieces() -> None:
    assert carried("Of a") is None
    assert carried([ChatMessage("a")]) is None
    assert site_of("Of a") is None


class Person(BaseModel):
    """Someone."""

    name: str


def ask_in_all_ways(llm: Parrot, prompt: PromptTemplate, text: str) -> None:
    llm.predict(prompt, text=text)
    list(llm.stream(prompt, text=text))
    llm.complete(llm._get_prompt(prompt, text=text), formatted=True)
    llm.structured_predict(Person, prompt, text=text)


def test_a_template_is_a_site_and_texts_are_none() -> None:
    with sites_of() as (llm, sites):
        summary = PromptTemplate("Of {text}", prompt_type=PromptType.SUMMARY)
        ask_in_all_ways(llm, summary, "a")
        ask_in_all_ways(llm, summary, "b")
        (site,) = set(sites())
        assert site.startswith("summary.")
        ask_in_all_ways(llm, PromptTemplate("About {text}"), "a")
        assert len(set(sites())) == 2
        llm.complete("a")
        llm.as_structured_llm(Person).complete("a")
        assert sites()[-2:] == [None, None]


def test_no_span_and_no_event_is_added() -> None:
    entered: list[str] = []

    class Entered(NullSpanHandler):
        def span_enter(self, id_: str, *args: Any, **kwargs: Any) -> None:
            entered.append(id_.split("-")[0])

    handler, debug = Entered(), LlamaDebugHandler(print_trace_on_end=False)
    root_dispatcher.add_span_handler(handler)
    try:
        with sites_of() as (llm, _):
            llm.callback_manager = CallbackManager([debug])
            llm.predict(PromptTemplate("Of {text}"), text="a")
    finally:
        root_dispatcher.span_handlers.remove(handler)
    assert entered == ["Parrot.predict", "Parrot.chat"]
    assert [pair[0].event_type.value for pair in debug.get_event_pairs()] == ["templating", "llm"]
    (((start, _)),) = debug.get_llm_inputs_outputs()
    assert start.payload["messages"] == [ChatMessage("Of a")]


@contextmanager
def sites_of() -> Iterator[tuple[Parrot, Any]]:
    """An LLM, and the sites that its requests name."""
    message = {"role": "assistant", "content": '{"name": "Ada"}'}
    answer = {"choices": [{"index": 0, "message": message, "delta": message}], "object": "x"}

    class Both(Replying):
        def next(self) -> Reply:
            streamed = self.requests[-1][3].get("stream")
            return events(answer, "[DONE]") if streamed else Reply(body=json.dumps(answer).encode())

    with replying(Reply()) as server:
        server.__class__ = Both
        llm = Parrot(base_url=server.url, model="m", context_window=1000)
        yield llm, lambda: [headers.get(SITE_HEADER) for _, _, headers, _ in server.requests]
