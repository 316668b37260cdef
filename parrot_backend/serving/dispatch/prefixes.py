"""`SharedPrefixes`: lets one call compute what several begin with, and the others wait for it.

For endpoints that share only what is computed: jobs that begin alike and come together each compute
their beginning there. The others wait until the first has its first token.
"""

from collections import OrderedDict

from parrot_backend.serving.call import Call
from parrot_backend.wire.text_protocol import PromptRequest

_Prefix = tuple[str, int]

_SHORTEST, _COMPARED = 64, 256  # characters; of a single message as many as `_COMPARED`
_REMEMBERED = 10_000


class SharedPrefixes:
    """Who computes which prefix, and who waits for it."""

    def __init__(self) -> None:
        self._behind: dict[_Prefix, dict[Call, None]] = {}
        self._computing: dict[Call, _Prefix] = {}
        self._waiting: dict[Call, _Prefix] = {}
        self._computed: OrderedDict[_Prefix, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._behind) + len(self._computing) + len(self._waiting)

    def may_run(self, call: Call) -> bool:
        """Whether nobody computes its prefix; else it waits, and is handed back in time."""
        prefix = _prefix_of(call)
        if prefix is None:
            return True
        if prefix in self._computed:
            self._computed.move_to_end(prefix)
            return True
        if prefix in self._behind:
            self._behind[prefix][call] = None
            self._waiting[call] = prefix
            return False
        self._behind[prefix] = {}
        self._computing[call] = prefix
        return True

    def has_computed(self, call: Call) -> list[Call]:
        """A call has its first token; who has waited for it is returned."""
        if (prefix := self._computing.get(call)) is None:
            return []
        self._computed[prefix] = None
        if len(self._computed) > _REMEMBERED:
            self._computed.popitem(last=False)
        return self.remove(call)

    def remove(self, call: Call) -> list[Call]:
        """A call waits or runs no longer; who has waited for it is returned."""
        if (waited_for := self._waiting.pop(call, None)) is not None:
            del self._behind[waited_for][call]
        if (prefix := self._computing.pop(call, None)) is None:
            return []
        free = [*self._behind.pop(prefix)]
        for other in free:
            del self._waiting[other]
        return free

    def forget(self) -> None:
        """What was computed is gone."""
        self._computed.clear()


def _prefix_of(call: Call) -> _Prefix | None:
    """What other calls of its tenant are likely to begin with: a first message, or its beginning."""
    request = call.request
    if request is None:
        return None
    if not isinstance(request, PromptRequest):
        first = request.messages[0].content
        text = first if len(request.messages) > 1 else first[:_COMPARED]
    elif isinstance(request.prompt, str):
        text = request.prompt[:_COMPARED]
    else:
        text = repr(request.prompt[:_COMPARED])
    return (call.tenant.name, hash(text)) if len(text) >= _SHORTEST else None
