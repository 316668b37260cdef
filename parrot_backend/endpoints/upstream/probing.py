"""One probe of an upstream: what is wrong with it, if anything is."""

from collections.abc import Callable

import httpx

from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.faults import key_error, quoted
from parrot_backend.endpoints.upstream.recognize import Recognized, names_in

PROBE_SECONDS = 3.5
"""Two that miss, and what is between them, are less than ten seconds."""


async def trouble_of(client: Client, known: Recognized, heard: Callable[[], bool]) -> str | None:
    """Why it can't be used at the moment, or None.

    Args:
        client: asks it.
        known: what it is to be.
        heard: whether it has sent anything since; then it lives, however late it answers this.
    """
    place, path = client.address.place, known.dialect.probe
    try:
        reply = await client.get(path, seconds=PROBE_SECONDS)
    except httpx.ConnectError:
        return f"{place} can't be reached"
    except (httpx.HTTPError, TimeoutError):
        return None if heard() else f"{place} does not answer"
    if reply.status in (401, 403):
        return key_error(place, reply.status, client.key).message
    if reply.status >= 500 and reply.status != 503:  # which is said by those that are busy
        return f"{place} answers {reply.status} to a probe"
    if path == "/v1/models" and reply.good and not isinstance(reply.body, dict):
        return f"{place} tells nothing that we understand"
    names = names_in(reply) if path == "/v1/models" else None
    if names is not None and known.model.name not in names:
        served = quoted(", ".join(names[:5]), client.key) or "nothing"
        return f"{place} serves {served} and no more '{known.model.name}'"
    return None
