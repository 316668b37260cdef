"""`Extras`: the fields that we add to a request, which not every server takes."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.endpoints.upstream.faults import RefusedError
from parrot_backend.endpoints.upstream.requests import EXTRAS

logger = logging.getLogger(__name__)

_SALT = "cache_salt"


class Extras:
    """Which of them one job does without, to see whether it runs then.

    Servers quote in their errors what a client has written. So words are a reason to try, and that a
    request is taken without the field is the proof. The salt keeps tenants apart: where the client has
    written its name, words that have it are no reason either.
    """

    def __init__(self) -> None:
        self.given_up: list[str] = []

    def give_up(self, refused: RefusedError, body: Mapping[str, Any]) -> bool:
        """Do without one more, if a refusal blames one."""
        for extra in EXTRAS:
            if extra in body and extra not in self.given_up and _blamed(extra, refused, body):
                self.given_up.append(extra)
                return True
        return False

    def left_out_of(self, dialect: Dialect) -> Dialect:
        """What is asked in now."""
        for extra in self.given_up:
            dialect = dialect.without(extra)
        return dialect

    def learned(self, dialect: Dialect, place: str) -> Dialect:
        """What is asked in from now on, as it has turned out that the server takes that."""
        known = self.left_out_of(dialect)
        for extra in self.given_up:
            logger.info("%s refuses %s: it is not sent any more", place, extra)
        if dialect.salts and not known.salts:
            logger.warning("%s takes no %s: tenants share its cached prefixes", place, _SALT)
        self.given_up = []
        return known


def _blamed(extra: str, refused: RefusedError, body: Mapping[str, Any]) -> bool:
    if refused.field == extra:
        return True
    if extra not in refused.error.message:
        return False
    return extra != _SALT or not _wrote(_SALT, body)


def _wrote(word: str, body: Mapping[str, Any]) -> bool:
    """Whether a client's part of a request has a word in it, however that is written."""
    theirs = {name: value for name, value in body.items() if name not in EXTRAS}
    return word.lower() in json.dumps(theirs, ensure_ascii=False).lower()
