"""`parrot_session`: plain Python around any calls says that they belong together."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from parrot_backend.wire.protocol import CallScope, Objective
from parrot_backend.wire.views import GraphView, SessionView
from parrot_integrations.client.http import ParrotClient, asked_clients
from parrot_integrations.client.scope import active_scope, wire_name


class ParrotSession:
    """What was asked inside one `parrot_session`, to look into while it runs and for a while after.

    `thread` is its name at the backends. Each that was asked has a session for the calls, and one
    more for every compiled run.
    """

    def __init__(self, scope: CallScope) -> None:
        self.scope = scope
        self.clients: dict[Hashable, ParrotClient] = {}

    @property
    def thread(self) -> str | None:
        """The name by which the backends know it."""
        return self.scope.thread

    def views(self) -> list[SessionView]:
        """Counts of its sessions, the newest first."""
        return [v for client in self.clients.values() for v in client.sessions(self.thread)]

    async def aviews(self) -> list[SessionView]:
        """As `views`."""
        return [v for client in self.clients.values() for v in await client.asessions(self.thread)]

    def graphs(self) -> list[GraphView]:
        """The calls of its sessions, with their task groups and conversations, the newest first."""
        return [
            client.graph(view.id)
            for client in self.clients.values()
            for view in client.sessions(self.thread)
        ]

    async def agraphs(self) -> list[GraphView]:
        """As `graphs`."""
        return [
            await client.agraph(view.id)
            for client in self.clients.values()
            for view in await client.asessions(self.thread)
        ]


@contextmanager
def parrot_session(
    *,
    objective: Objective | None = None,
    tags: Sequence[str] = (),
    thread: str | None = None,
) -> Iterator[ParrotSession]:
    """The calls that are made inside, in any framework and also by threads and tasks that it starts
    with a copy of the context, are one session at the backend. Nothing is sent for it: the first
    call opens the session, and it expires when nobody uses it any more.

    Args:
        objective: what is wanted of the calls: `latency` (the default) or `throughput`; `ttft` and
            `tpot` are served like `latency` today.
        tags: labels of the session; those of a session around it are added.
        thread: name of a session that goes on from one `with` to the next, such as a user's chat.
    """
    outer = active_scope.get()
    scope = CallScope(
        thread=wire_name(thread) if thread else f"session-{uuid4().hex}",
        objective=objective or outer.objective,
        tags=[*outer.tags, *tags],
    )
    session = ParrotSession(scope)
    scoped, asked = active_scope.set(scope), asked_clients.set(session.clients)
    try:
        yield session
    finally:
        active_scope.reset(scoped)
        asked_clients.reset(asked)
