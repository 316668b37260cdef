"""Dialects: what one kind of server takes and tells, as data.

What is recognized is where we begin. Fields that only we add (a priority, a salt) are left out for good
where a server refuses them (`Dialect.without`); what a client asks for is never left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from parrot_backend.endpoints.base import Sharing
from parrot_backend.wire.errors import InvalidRequestError

Priorities = Literal["none", "lower_first", "higher_first"]
Structured = Literal["structured_outputs", "regex", "gbnf", "response_format", "none"]
"""How an answer's form is asked for: as in vLLM; JSON by `response_format`, and beside it by `regex`
(SGLang), by a choice in llama.cpp's kind of grammar, or nothing; or not at all."""
Tools = Literal["native", "ours", "ask", "none"]
"""Who splits tool calls from text: the server, or we (which needs grammars); `ask`: it is found out
when tools are first offered; `none`: nobody can."""
Tokenizers = Literal["vllm", "llamacpp", "parrot", "prompt", "none"]

_OPENAI = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop")


def _taken(*more: str, **renamed: str) -> Mapping[str, str]:
    return {name: name for name in (*_OPENAI, *more)} | {"max_tokens": "max_tokens"} | renamed


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of server speaks.

    `taken` are the parameters of a generation that it takes, under its own names. `slots` is how many
    jobs it is given at once where it does not tell. `probe` is a cheap route, asked every
    `probe_seconds`. It `narrows` where we close the objects of schemas for it, and `styles` where it
    takes llguidance's hints on how JSON is written. `picks_slot`: we choose the slot of each job.
    """

    name: str
    taken: Mapping[str, str]
    priority: Priorities = "none"
    salts: bool = False
    tells_tokens: bool = False
    takes_tokens: bool = False
    completes: bool = True
    structured: Structured = "response_format"
    json_object: bool = True
    narrows: bool = True
    styles: bool = False
    tools: Tools = "native"
    tool_choice: bool = True
    named_tool: bool = True
    logprobs: bool = True
    tells_cached: bool = True
    tells_usage: bool = True
    sharing: Sharing = "computed"
    tokenizer: Tokenizers = "none"
    pins: bool = False
    repeatable: bool = False
    slots: int = 8
    probe: str = "/v1/models"
    probe_seconds: float = 2.0
    picks_slot: bool = False

    def without(self, extra: str) -> "Dialect":
        """The same, but that field of ours is not sent any more."""
        off: dict[str, Mapping[str, object]] = {
            "priority": {"priority": "none"},
            "cache_salt": {"salts": False},
            "return_token_ids": {"tells_tokens": False},
            "stream_options": {"tells_usage": False},
            "id_slot": {"picks_slot": False},
            "cache_prompt": {"picks_slot": False},
        }
        return replace(self, **off[extra])  # type: ignore[arg-type]

    def measured(self, found: Mapping[str, object]) -> "Dialect":
        """The same, but for what was found by measuring.

        Raises:
            InvalidRequestError: no dialect has such a field.
        """
        known = {field.name for field in fields(self)}
        if unknown := sorted(found.keys() - known):
            raise InvalidRequestError(
                f"what was measured has '{unknown[0]}', which no dialect has; there are: "
                f"{', '.join(sorted(known))}",
                param="measured",
            )
        return replace(self, **found)  # type: ignore[arg-type]


VLLM = Dialect(
    "vLLM",
    _taken("top_k", "min_p", "repetition_penalty", "logit_bias"),
    priority="lower_first",
    salts=True,
    tells_tokens=True,
    takes_tokens=True,
    structured="structured_outputs",
    styles=True,
    tools="ask",
    sharing="batch",
    tokenizer="vllm",
    pins=True,
    slots=64,
)
SGLANG = Dialect(
    "SGLang",
    _taken("top_k", "min_p", "repetition_penalty", "logit_bias"),
    salts=True,
    tells_tokens=True,
    takes_tokens=True,
    structured="regex",
    tokenizer="prompt",
    pins=True,
    slots=64,
)
LLAMA_CPP = Dialect(
    "llama.cpp",
    _taken("top_k", "min_p", "logit_bias", repetition_penalty="repeat_penalty"),
    takes_tokens=True,
    structured="gbnf",
    tools="ask",
    named_tool=False,
    sharing="slot",
    tokenizer="llamacpp",
    pins=True,
    slots=1,
    picks_slot=True,
)
# It puts raw prompts into its template, and ignores what it does not know: so little is taken.
OLLAMA = Dialect(
    "Ollama",
    _taken(),
    completes=False,
    tool_choice=False,
    logprobs=False,
    tells_cached=False,
    sharing="slot",
    slots=4,
)
LM_STUDIO = Dialect(
    "LM Studio",
    _taken("top_k", "logit_bias", repetition_penalty="repeat_penalty"),
    json_object=False,
    named_tool=False,
    logprobs=False,
    tells_cached=False,
    sharing="slot",
    slots=4,
)
PARROT = Dialect(
    "Parrot",
    _taken("top_k", "min_p", "repetition_penalty", "logit_bias"),
    takes_tokens=True,
    structured="structured_outputs",
    narrows=False,
    sharing="batch",
    tokenizer="parrot",
    pins=True,
    repeatable=True,
    slots=16,
)
# A cloud reads descriptions in schemas, and counts requests: it is not asked how it is all the time.
GENERIC = Dialect("an OpenAI-compatible server", _taken("logit_bias"), narrows=False, slots=16)
CLOUD = replace(GENERIC, probe_seconds=30.0)
OPENAI = replace(
    CLOUD, name="OpenAI", taken=_taken("logit_bias", max_tokens="max_completion_tokens")
)
