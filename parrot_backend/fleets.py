"""From what the command line, a file or an operator says of engines to the members of a fleet."""

import logging
from collections.abc import Collection, Sequence
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from parrot_backend import DEFAULT_MODEL
from parrot_backend.endpoints.making import Making
from parrot_backend.endpoints.spec_names import named
from parrot_backend.endpoints.specs import EngineSpec, checked, place_of, spec_of
from parrot_backend.endpoints.vllm.finding import INSTALL, Machine
from parrot_backend.serving.dispatch.fleet import Member
from parrot_backend.wire.errors import InvalidRequestError, ParrotError

logger = logging.getLogger(__name__)


def engine_by_itself(
    model: str | None, machine: Machine, arguments: Sequence[str] = ()
) -> EngineSpec:
    """The engine of a server that is told none: vLLM where there is CUDA and vLLM, else ours."""
    model = model or DEFAULT_MODEL
    if not machine.cuda:
        return spec_of(f"parrot:{model}")
    if machine.vllm is None:
        logger.info(
            "this machine has CUDA and no vLLM, which would be faster: %s; "
            "going on with Parrot's own engine",
            INSTALL,
        )
        return spec_of(f"parrot:{model}")
    logger.info(
        "this machine has CUDA and vLLM: serving %s with vLLM (--engine parrot:%s takes "
        "Parrot's own engine)",
        model,
        model,
    )
    return spec_of(f"vllm:{model}", arguments)


def members_of(specs: Sequence[EngineSpec], making: Making) -> list[Member]:
    """Their members, not started yet. Of several, those that can't be made are told and left out.

    Raises:
        InvalidRequestError: two have one name, or one alias for two models, or none can be made.
    """
    members: list[Member] = []
    problems: list[InvalidRequestError] = []
    for spec in named(specs):
        try:
            members += (_member(each, making) for each in spec.each())
        except InvalidRequestError as error:
            problems.append(error)
    if not members:
        *others, last = problems
        _tell(others)
        raise last
    _tell(problems)
    return members


def tell_unknown_tenants(specs: Sequence[EngineSpec], names: Collection[str] = ()) -> None:
    """Warn of engines that are for tenants of whom there is no key, of those of these names."""
    for spec in specs:
        if unknown := sorted((spec.tenants or frozenset()).difference(names)):
            logger.warning(
                "engine '%s' is for tenants of whom --api-keys has no key: %s",
                spec.name or place_of(spec.engine),
                ", ".join(unknown),
            )


def members_of_body(body: dict[str, Any], making: Making) -> list[Member]:
    """The members of an engine that an operator adds, not started yet.

    What comes over the network gives vLLM no flags and sends no key: who names the URL would get the
    key, and it is this machine's.

    Raises:
        InvalidRequestError: it is none.
    """
    (spec,) = named([checked(body, "")])
    for field in ("arguments", "api_key_env", "api_key_file"):
        if getattr(spec, field):
            raise InvalidRequestError(
                f"{field}: not over HTTP; put such an engine into the file of --engines, and send "
                "SIGHUP to have it read again",
                param=field,
            )
    return [_member(each, making) for each in spec.each()]


def _member(spec: EngineSpec, making: Making) -> Member:
    is_upstream = spec.kind == "upstream"
    return Member(
        spec.name or spec.kind,
        making.endpoint_of(spec),
        aliases=spec.aliases,
        weight=spec.weight,
        slots=spec.slots,
        tenants=spec.tenants,
        model=spec.serves,
        spec=_made_of(spec),
        make=partial(making.endpoint_of, spec) if is_upstream else None,
        exclusive=not is_upstream,
        place=urlsplit(spec.engine).netloc if is_upstream else None,
    )


def _made_of(spec: EngineSpec) -> object:
    """What the endpoint of a spec is made of; where it is equal one does for the other.

    Its key is part of it, as it is now, so that another key in the same file makes another endpoint.
    """
    key = spec.key()
    digest = None if key is None else sha256(key.reveal().encode()).digest()
    slots = None if spec.kind == "parrot" else spec.slots
    return spec.engine, spec.models, spec.arguments, slots, digest


def _tell(problems: Sequence[ParrotError]) -> None:
    for problem in problems:
        logger.error("%s", problem.message)
