"""From what an operator says of an engine to the endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parrot_backend.endpoints.base import HANG_SECONDS, Endpoint
from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.endpoints.specs import EngineSpec
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.endpoints.vllm.command import value_of
from parrot_backend.endpoints.vllm.endpoint import VllmEndpoint
from parrot_backend.endpoints.vllm.finding import the_vllm
from parrot_backend.endpoints.vllm.starting import Launch, Started


@dataclass(frozen=True, slots=True)
class Making:
    """What all engines of a server are made with.

    `ours` are the options of our own, see `process.factories.torch_engine`. An engine that gets nowhere
    for `hang_seconds` is started anew.
    """

    ours: Mapping[str, object] = field(default_factory=dict)
    hang_seconds: float = HANG_SECONDS

    def endpoint_of(self, spec: EngineSpec) -> Endpoint:
        """The endpoint, not started yet.

        Raises:
            InvalidRequestError: it can't be had here; says what is missing.
        """
        match spec.kind:
            case "parrot":
                recipe = Recipe({**self.ours, "model": spec.target})
                return ProcessEndpoint(recipe, hang_seconds=self.hang_seconds)
            case "vllm":
                return self._vllm(spec)
            case "upstream":
                (model,) = spec.models or (None,)
                return UpstreamEndpoint(
                    spec.target,
                    key=spec.key(),
                    model=model,
                    slots=spec.slots,
                    hang_seconds=self.hang_seconds,
                )

    def _vllm(self, spec: EngineSpec) -> Endpoint:
        launch = Launch(the_vllm(), spec.target, spec.arguments)

        def upstream_of(started: Started) -> Endpoint:
            return UpstreamEndpoint(
                started.url,
                key=started.key,
                model=started.served_name,
                slots=spec.slots or _batch(spec.arguments),
                hang_seconds=self.hang_seconds,
            )

        return VllmEndpoint(launch, upstream_of, hang_seconds=self.hang_seconds)


def _batch(arguments: Sequence[str]) -> int | None:
    """How many sequences vLLM is told to run at once; what more it was given would wait there."""
    told = value_of("--max-num-seqs", arguments) or ""
    return int(told) if told.isdecimal() and int(told) else None
