"""What LlamaIndex reveals of a call: its thread, and the siblings that it runs beside."""

from typing import Any, get_args

from llama_index_instrumentation.dispatcher import active_instrument_tags

from parrot_backend.wire.protocol import CallScope, Objective
from parrot_integrations.client.scope import active_scope, wire_name
from parrot_integrations.llama_index.gathered import gathered
from parrot_integrations.llama_index.segments import site_of
from parrot_integrations.llama_index.spans import current_span

_THREAD_TAGS = ("thread_id", "session_id", "conversation_id")
_GROUP_TAG = "parrot_group"
_OBJECTIVE_TAG = "parrot_objective"


def scope_of(asked: object) -> CallScope:
    """Where the call belongs that is being made; to be asked inside the LLM's own method.

    What `parrot_session` and `task_group` say goes first, then the tags of `instrument_tags`, and then
    what the spans say:

    - The thread is named by the tags `thread_id`, `session_id` or `conversation_id`. Without them it
      is the conversation of a chat engine, a workflow's context or an agent's memory, where the
      framework shows that, or else what the application asked for: one query, one run of a workflow.
      Calls that are made of the LLM alone are of no thread.
    - The task group is named by the tag `parrot_group`. Without it, calls are siblings that run side
      by side at the same place of one thing that was asked for: the calls for the chunks of a tree's
      level, for a query's sub-questions, for an extractor's nodes, in a workflow's steps of one name.
    - The site is the template of what is `asked`, a prompt or messages, where it was made of one.
    - The objective is what the tag `parrot_objective` says: `latency` or `throughput`.
    """
    scope, tags, span = active_scope.get(), active_instrument_tags.get(), current_span()
    thread, group = _named(tags, *_THREAD_TAGS), _named(tags, _GROUP_TAG)
    if span is not None and span.thread is not None:
        span.asks()
        thread, group = thread or span.thread, group or f"siblings-{span.place:x}"
    objective = tags.get(_OBJECTIVE_TAG)
    found = {
        "thread": scope.thread or thread,
        "group": scope.group or group,
        "site": scope.site or site_of(asked),
        "objective": scope.objective or (objective if objective in get_args(Objective) else None),
    }
    return scope.model_copy(update=found)


def ascope_of(asked: object) -> CallScope:
    """As `scope_of`, of an asynchronous call: where nothing else tells of siblings, a `gather` does."""
    scope = scope_of(asked)
    return scope if scope.group else scope.model_copy(update={"group": gathered()})


def _named(tags: dict[str, Any], *names: str) -> str | None:
    """What the first of these tags that is there says, as the wire takes it."""
    text = next((str(tags[name]) for name in names if tags.get(name)), None)
    return None if text is None else wire_name(text)
