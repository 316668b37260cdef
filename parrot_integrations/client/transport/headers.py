"""Headers that go with every request, checked before there is a request."""

import re
from collections.abc import Mapping

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([!-~]([\t -~]*[!-~])?)?")


def request_headers(api_key: str | None, given: Mapping[str, str] | None) -> dict[str, str]:
    """The key as a bearer token, and the given ones, which go before it; names in lower case.

    Raises:
        ValueError: one can't be sent; it is named and, as it may be a secret, not quoted.
    """
    if api_key and not _VALUE.fullmatch(api_key):
        raise ValueError(f"api_key {_UNFIT}")
    named = {} if given is None else {str(name).lower(): value for name, value in given.items()}
    for name, value in named.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"default_headers has {name!r}, which can't be the name of a header")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ValueError(f"default_headers[{name!r}] {_UNFIT}")
    return ({"authorization": f"Bearer {api_key}"} if api_key else {}) | named


_UNFIT = (
    "can't be sent in a header: it has characters that are not printable ASCII, or white space at "
    "one of its ends. Was it copied whole, and nothing else?"
)
