"""What the command line's arguments may be; each problem is told in one line."""

import argparse
import re
from typing import Literal, NoReturn

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


def quantization(text: str) -> Literal["int8"]:
    """How weights may be kept."""
    if text != "int8":
        raise argparse.ArgumentTypeError(f"'{text}' is not int8, the only one that there is")
    return "int8"


def port_number(text: str) -> int:
    """A TCP port; 0 stands for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")
    return int(text)
