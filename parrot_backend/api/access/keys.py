"""API keys and whose they are: one key for everybody, or a file that names tenants.

A keys file is TOML or JSON, a list `keys` of tables, each with a `name` and either the `key` or its
`sha256` in hexadecimal, and the quotas of `serving.tenants.Tenant`.
"""

import hashlib
import hmac
import json
import logging
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.messages import Name

logger = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]


class Keys:
    """The tenants of a server by their API keys, of which only digests are kept."""

    def __init__(self, tenants: Iterable[tuple[bytes, Tenant]]) -> None:
        self._tenants = list(tenants)

    @classmethod
    def single(cls, key: str) -> Self:
        """One key, with which everybody is an operator."""
        return cls([(_digest(key), EVERYBODY)])

    @property
    def names(self) -> frozenset[str]:
        """The tenants' names."""
        return frozenset(tenant.name for _, tenant in self._tenants)

    def tenant(self, key: str) -> Tenant | None:
        """Whose key it is. Takes as long for any key: all are compared, each in constant time."""
        given, found = _digest(key), None
        for digest, tenant in self._tenants:
            if hmac.compare_digest(given, digest):
                found = tenant
        return found


class _Entry(BaseModel):
    """One key of a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    key: str | None = Field(default=None, min_length=1)
    sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")
    operator: bool = False
    sessions: Count | None = None
    calls: Count | None = None
    tokens_per_minute: Count | None = None
    kv_share: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self

    @property
    def digest(self) -> bytes:
        return _digest(self.key) if self.key is not None else bytes.fromhex(self.sha256 or "")

    @property
    def tenant(self) -> Tenant:
        return Tenant(**self.model_dump(exclude={"key", "sha256"}))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[_Entry] = Field(min_length=1)


def read_keys(path: Path) -> Keys:
    """The tenants that a keys file names; who may read it besides its owner is warned of.

    Several keys may be one tenant's, with the same quotas.

    Raises:
        InvalidRequestError: it can't be read, or what is in it is no keys file; the message says where.
    """
    try:
        content = path.read_text()
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            logger.warning("%s can be read by other users: chmod 600 it", path)
        entries = _File.model_validate(_parsed(content)).keys
    except OSError as error:
        raise InvalidRequestError(f"can't read {path}: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, problem["loc"]))
        reason = problem["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"{path}: {field}: {reason}") from None
    except ValueError as error:  # of the syntax, with the line
        raise InvalidRequestError(f"{path}: {error}") from None
    _check_apart(path, entries)
    return Keys((entry.digest, entry.tenant) for entry in entries)


def _parsed(content: str) -> Any:
    return json.loads(content) if content.lstrip().startswith("{") else tomllib.loads(content)


def _check_apart(path: Path, entries: list[_Entry]) -> None:
    """A key is one tenant's, and a tenant has its quotas once."""
    seen: dict[bytes, int] = {}
    tenants: dict[str, Tenant] = {}
    for index, entry in enumerate(entries):
        if (first := seen.setdefault(entry.digest, index)) != index:
            raise InvalidRequestError(f"{path}: keys.{index}: its key is that of keys.{first}")
        if tenants.setdefault(entry.name, entry.tenant) != entry.tenant:
            raise InvalidRequestError(
                f"{path}: keys.{index}: tenant '{entry.name}' has other quotas above"
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
