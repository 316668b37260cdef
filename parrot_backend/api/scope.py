"""Where a request belongs, by its headers: a session, a thread, a task group."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header, Request
from pydantic import BeforeValidator

from parrot_backend.api.answers.choices import Take
from parrot_backend.api.state import tenancy_of
from parrot_backend.wire.messages import Name
from parrot_backend.wire.protocol import (
    GROUP_HEADER,
    GROUP_SIZE_HEADER,
    OBJECTIVE_HEADER,
    SESSION_HEADER,
    SITE_HEADER,
    TAGS_HEADER,
    THREAD_HEADER,
    CallScope,
    Objective,
    Tags,
)


def _unquoted(headers: list[str]) -> list[str]:
    return [unquote(tag.strip()) for header in headers for tag in header.split(",")]


_QuotedTags = Annotated[Tags, BeforeValidator(_unquoted)]


async def scope(
    thread: Annotated[Name | None, Header(alias=THREAD_HEADER)] = None,
    group: Annotated[Name | None, Header(alias=GROUP_HEADER)] = None,
    group_size: Annotated[int | None, Header(alias=GROUP_SIZE_HEADER, ge=1, le=2**31 - 1)] = None,
    site: Annotated[Name | None, Header(alias=SITE_HEADER)] = None,
    objective: Annotated[Objective | None, Header(alias=OBJECTIVE_HEADER)] = None,
    tags: Annotated[_QuotedTags, Header(alias=TAGS_HEADER)] = [],  # noqa: B006 - FastAPI copies it
) -> CallScope:
    """What the headers tell; tags are percent-encoded, with commas between them."""
    return CallScope(
        thread=thread,
        group=group,
        group_size=group_size,
        site=site,
        objective=objective,
        tags=tags,
    )


InScope = Annotated[CallScope, Depends(scope)]


async def taker(
    http: Request, session: Annotated[str | None, Header(alias=SESSION_HEADER)] = None
) -> Take:
    """What takes the request's calls: the session that it names, or else the server.

    Raises:
        NotFoundError: there is no such session.
    """
    tenancy = tenancy_of(http)
    return tenancy.run if session is None else tenancy.get(session).take


Taker = Annotated[Take, Depends(taker)]
