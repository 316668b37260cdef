"""What the command line's arguments may be; each problem is told in one line."""

import argparse
import json
import os
import re
from typing import Any, Literal, NoReturn

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(?:([KMGT])(i?)B|B?)")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """End the process with code 2."""
        self.exit(2, f"parrot: error: {message} ({self.prog} --help says more)\n")


def memory_size(text: str) -> int:
    """Bytes of `2GiB`, `500MB` or `1048576`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no size: write 2GiB, 500MB or bytes")
    number, unit, binary = match.groups()
    size = int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit or " "))
    if size == 0:
        raise argparse.ArgumentTypeError("it must be more than 0")
    return size


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """A time that is 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no time: write seconds, 0 or more")
    return number


def quantization(text: str) -> Literal["int8"]:
    """How weights may be kept."""
    if text != "int8":
        raise argparse.ArgumentTypeError(f"'{text}' is not int8, the only one that there is")
    return "int8"


def generation_config(text: str) -> str:
    """Where defaults for sampling come from: `auto`, `vllm`, or a folder, by its full path."""
    if text in ("auto", "vllm"):
        return text
    folder = os.path.abspath(os.path.expanduser(text))
    if not os.path.isfile(os.path.join(folder, "generation_config.json")):
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither auto nor vllm, nor a folder with a generation_config.json"
        )
    return folder


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"'{text[:100]}' is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is no JSON object")
    return value


def port_number(text: str) -> int:
    """A TCP port; 0 stands for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")
    return int(text)
