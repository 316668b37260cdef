"""The key of an upstream, from the variable or the file that was named for it."""

import os
import re
from pathlib import Path

from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.wire.errors import InvalidRequestError

_PLAIN_NAME = re.compile(r"[A-Z][A-Z0-9]{,15}(_[A-Z0-9]{1,16})*")
"""Words in capitals: keys have both cases, or are longer in one piece."""


def read_key(
    variable: str | None,
    file: Path | None,
    fields: tuple[str, str] = ("api_key_env", "api_key_file"),
) -> Secret | None:
    """The key that is in a variable or a file; None where neither is named.

    What is wrong is told by the field's name: where a variable or a file is expected, some write the
    key itself, and no error is to repeat it. Only a variable that can't be one is told as well.

    Args:
        variable: the name of a variable of the environment.
        file: whose only word the key is.
        fields: what the two are called where they are given.

    Raises:
        InvalidRequestError: it is not there, or is none.
    """
    if variable is not None:
        where, text = fields[0], os.environ.get(variable, "").strip()
        if not text:
            named = variable if _PLAIN_NAME.fullmatch(variable) else "that it names"
            raise InvalidRequestError(f"{where}: the variable {named} is not set or empty")
    elif file is not None:
        where, text = fields[1], _only_word_of(file.expanduser(), fields[1])
    else:
        return None
    try:
        return Secret(text)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error.message}") from None


def _only_word_of(file: Path, field: str) -> str:
    try:
        words = file.read_text().split()
    except OSError as error:
        raise InvalidRequestError(f"{field}: can't read that file: {error.strerror}") from None
    except ValueError:
        raise InvalidRequestError(f"{field}: there is no key in that file: it is no text") from None
    if len(words) != 1:
        raise InvalidRequestError(
            f"{field}: there is no key in that file: it has to be its only word"
        )
    return words[0]
