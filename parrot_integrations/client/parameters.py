"""Sampling parameters of a request, from a model's settings and a call's own."""

from collections.abc import Mapping
from typing import Any

# The frameworks' other names for the wire's parameters.
_ALIASES = {
    "model_name": "model",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
}


def merged_parameters(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers under the wire's names, later ones over earlier ones.

    None means the server's default and is left out, as is an empty list of stop strings. Unknown
    names pass: the server refuses them by name.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= {_ALIASES.get(name, name): value for name, value in layer.items()}
    if not merged.get("stop"):
        merged.pop("stop", None)
    return {name: value for name, value in merged.items() if value is not None}


def check_one_choice(body: Mapping[str, Any]) -> None:
    """A stream is one text: several choices can't be told apart in it.

    Raises:
        ValueError: the request asks for several.
    """
    if (count := body.get("n", 1)) != 1:
        raise ValueError(f"n is {count}: a stream gives one choice; leave n out or don't stream")
