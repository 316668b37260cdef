"""Clients that all who have the same settings share, and with them their connections."""

from collections.abc import Mapping
from functools import lru_cache
from weakref import WeakValueDictionary

import httpx
from pydantic import SecretStr

from parrot_integrations.client.http import ParrotClient
from parrot_integrations.client.transport.settings import settings
from parrot_integrations.client.transport.timeouts import GivenTimeout, Timeouts, timeouts


def shared_client(
    base_url: str | None,
    *,
    api_key: str | SecretStr | None,
    model: str | None,
    timeout: GivenTimeout,
    max_retries: int | None,
    default_headers: Mapping[str, str] | None = None,
    http_client: httpx.Client | None = None,
    http_async_client: httpx.AsyncClient | None = None,
) -> ParrotClient:
    """One client, and so one pool of connections, for all who have the same settings.

    Args:
        base_url, api_key, model, timeout, max_retries, default_headers: see `ParrotClient`.
        http_client, http_async_client: clients of the caller's; see `Transport.over`.

    Raises:
        ValueError: see `ParrotClient`; or an httpx client is given, and a Unix socket named.
    """
    key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    named = settings(base_url, key, model)
    headers = tuple(sorted((default_headers or {}).items()))
    client = _cached_client(*named, timeouts(timeout), max_retries, headers)
    if http_client is None and http_async_client is None:
        return client
    # Not kept for longer than it is used, for the httpx clients are not ours to keep alive.
    identity = client, id(http_client), id(http_async_client)
    over_callers = _over_callers.get(identity) or client.over(http_client, http_async_client)
    return _over_callers.setdefault(identity, over_callers)


@lru_cache(maxsize=64)
def _cached_client(
    base_url: str | None,
    api_key: str | None,
    model: str | None,
    timeout: Timeouts,
    max_retries: int | None,
    headers: tuple[tuple[str, str], ...],
) -> ParrotClient:
    return ParrotClient(
        base_url,
        api_key=api_key,
        model=model,
        timeout=timeout,
        max_retries=max_retries,
        default_headers=dict(headers),
    )


_over_callers: WeakValueDictionary[tuple[ParrotClient, int, int], ParrotClient] = (
    WeakValueDictionary()
)
