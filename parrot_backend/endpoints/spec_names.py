"""What engines are called that have no name of their own, and whose key is where."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from parrot_backend.endpoints.specs import EngineSpec, twice_in
from parrot_backend.endpoints.upstream.address import KEY_VARIABLE
from parrot_backend.wire.errors import InvalidRequestError

logger = logging.getLogger(__name__)


def named(specs: Sequence[EngineSpec]) -> list[EngineSpec]:
    """The engines with a name each, which those without get after what they are.

    Several may have one alias where they serve one model. What each serves is mostly known when it has
    been started only, and who then doesn't fit is refused; here are those that say it.

    Raises:
        InvalidRequestError: two have one name, or one alias for two models.
    """
    taken = Counter(spec.name for spec in specs if spec.name is not None)
    for name, count in taken.items():
        if count > 1:
            raise InvalidRequestError(f"two engines are named '{name}': give each its own")
    _check_aliases(specs)
    result = []
    for spec in specs:
        if spec.name is None:
            name = _free(_own_name(spec), taken)
            spec = spec.model_copy(update={"name": name})
            taken[name] += 1
        result.append(spec)
    names = [one.name for spec in result for one in spec.each() if one.name is not None]
    if twice := twice_in(names):
        raise InvalidRequestError(
            f"two engines would be named '{twice}': give each of those models an entry with a name of "
            "its own"
        )
    return result


def _check_aliases(specs: Sequence[EngineSpec]) -> None:
    meant: dict[str, str] = {}
    for spec in specs:
        if (model := spec.serves or next(iter(spec.models or ()), None)) is None:
            continue
        for alias in spec.aliases:
            if meant.setdefault(alias, model) != model:
                raise InvalidRequestError(
                    f"two engines have the alias '{alias}', and one serves '{meant[alias]}', the "
                    f"other '{model}': give each model aliases of its own, or both engines one "
                    "'serves'"
                )


def with_key(specs: Sequence[EngineSpec], environment: Mapping[str, str]) -> list[EngineSpec]:
    """The engines; `PARROT_ENGINE_API_KEY` is the key of the only URL, unless it has one of its own."""
    upstreams = [spec for spec in specs if spec.kind == "upstream"]
    if not environment.get(KEY_VARIABLE) or not upstreams:
        return list(specs)
    if len(upstreams) > 1:
        if not all(spec.api_key_env or spec.api_key_file for spec in upstreams):
            logger.warning(
                "%s is the key of an only URL, and none of these %d gets it: name each one's by "
                "api_key_env or api_key_file in the file of --engines",
                KEY_VARIABLE,
                len(upstreams),
            )
        return list(specs)
    return [
        spec.model_copy(update={"api_key_env": KEY_VARIABLE})
        if spec is upstreams[0] and not (spec.api_key_env or spec.api_key_file)
        else spec
        for spec in specs
    ]


def _own_name(spec: EngineSpec) -> str:
    if spec.kind != "upstream":
        return spec.kind
    parts = urlsplit(spec.engine)
    host = re.sub(r"[^A-Za-z0-9_.\-]", "-", parts.hostname or "")
    return f"{host}:{parts.port}" if parts.port else host


def _free(name: str, taken: Mapping[str, int]) -> str:
    names = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken)
