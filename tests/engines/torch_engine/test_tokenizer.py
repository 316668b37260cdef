"""Tokens and prompts are transformers' own, without it."""

from datetime import datetime
from typing import Any

import pytest
from jinja2.exceptions import SecurityError, TemplateError
from transformers import AutoTokenizer

from parrot_backend.engines.torch_engine.tokenizer import Tokenizer
from tests.engines.torch_engine.conftest import byte_tokenizer
from tests.tools import NOW, WEATHER

TEXTS = [
    "",
    " ",
    "Hello, world! It's 12345 o'clock.",
    "  two  spaces,\ttabs\r\nand\n\n\nlines  ",
    "<|im_start|>user\nhi<|im_end|>",
    "<|endoftext|><end>",
    "日本の首都はどこですか？ ¿Cuál? Что такое? 🦜🌴 e\u0301 ﬁ \u200b",
    "def f(n):\n    return n  # " + "x" * 500,
]
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What does 🦜 mean? <|im_end|>"}
CALL = {"type": "function", "function": {"name": "now", "arguments": {"zone": "Ü", "n": [1, None]}}}
CHATS = [
    [USER],
    [SYSTEM, USER],
    [USER, {"role": "assistant", "content": "A parrot.\n"}, USER],
    [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}],
    [USER, {"role": "tool", "content": "noon"}],
    [{"role": "user", "content": "  kept as it is \n", "name": "Ann"}],
]
TOOLS = [None, [WEATHER], [WEATHER, NOW]]
TEMPLATES = [
    "{% for m in messages %}{{ m | tojson }}{% endfor %}{{ tools | tojson(indent=2) }}{{ documents }}",
    "{{ bos_token }}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
    "{{ m.content }}{% endfor %}{{ eos_token }}{% if add_generation_prompt %}>{% endif %}",
    "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.last = m.role %}{% endfor %}{{ ns.n }}{{ ns.last }}"
    "{{ dict(a=1) }}{{ dict.fromkeys([2]) }}",
    "{% for m in messages %}\n    {% if m.role == 'assistant' %}\n"
    "{% generation %}{% set inner = m.content %}{{ inner }}{% endgeneration %}{{ inner }}\n"
    "    {% endif %}\n{% endfor %}\nend",
    "{{ strftime_now('%Y') }}{% for k, v in messages[0] | dictsort %}{{ k }}={{ v | trim }};"
    "{% endfor %}",
]


@pytest.fixture(scope="module", params=["bytes", pytest.param("real", marks=pytest.mark.model)])
def own(request: pytest.FixtureRequest) -> Any:
    """A tokenizer of transformers."""
    if request.param == "bytes":
        return byte_tokenizer()
    return AutoTokenizer.from_pretrained(request.getfixturevalue("model_path"))


def test_tokens_and_texts(own: Any) -> None:
    ours = Tokenizer.of(own)
    for text in TEXTS:
        for special in (True, False):
            expected = own.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special) == expected
            for skip in (True, False):
                assert ours.decode(expected, skip_special_tokens=skip) == own.decode(
                    expected, skip_special_tokens=skip
                )


def test_what_a_file_says_of_truncation_and_padding_counts_for_nothing(own: Any) -> None:
    own.backend_tokenizer.enable_truncation(3)
    own.backend_tokenizer.enable_padding(length=64)
    text = TEXTS[-1]
    assert Tokenizer.of(own).encode(text) == own.encode(text)


@pytest.mark.parametrize("template", [None, *TEMPLATES])
@pytest.mark.parametrize("tools", TOOLS, ids=["no tools", "one", "two"])
def test_prompts(own: Any, template: str | None, tools: list[Any] | None) -> None:
    given = own.chat_template
    own.chat_template = template or given
    try:
        ours = Tokenizer.of(own)
        for chat in CHATS:
            options = {"add_generation_prompt": True, "tokenize": False}
            expected = _told(own.apply_chat_template, chat, tools=tools, **options)
            assert _told(ours.render, chat, tools) == expected
    finally:
        own.chat_template = given


def _told(render: Any, *arguments: Any, **options: Any) -> str:
    """What it renders, or why it refuses."""
    try:
        return str(render(*arguments, **options))
    except TemplateError as error:
        return f"refused: {error}"


def test_a_template_for_tools_is_taken_where_there_are_some() -> None:
    own = byte_tokenizer()
    own.chat_template = {"default": "plain", "tool_use": "with {{ tools | length }}"}
    ours = Tokenizer.of(own)
    assert ours.render([USER], None) == "plain"
    assert ours.render([USER], [NOW]) == "with 1"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
    ],
)
def test_a_template_stays_in_its_sandbox(template: str) -> None:
    own = byte_tokenizer()
    own.chat_template = template
    with pytest.raises(SecurityError):
        Tokenizer.of(own).render([USER], None)


def test_time_is_that_of_the_machine() -> None:
    own = byte_tokenizer()
    own.chat_template = "{{ strftime_now('%Y-%m') }}"
    assert Tokenizer.of(own).render([USER], None) == datetime.now().strftime("%Y-%m")
