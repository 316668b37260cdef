"""All checks of the installation; one that fails is a finding as well."""

from collections.abc import Callable, Iterator, Mapping

from parrot_backend.doctor.findings import Finding
from parrot_backend.doctor.installation import machine, surroundings, versions
from parrot_backend.doctor.installation import store as model_store

CHECKS: Mapping[str, Callable[[], Iterator[Finding]]] = {
    "versions": versions.look,
    "model store": model_store.look,
    "permissions": surroundings.folders,
    "port": surroundings.port,
    "backends": surroundings.backends,
    "processor": machine.processor,
    "cores": machine.cores,
    "memory": machine.memory,
    "GPU": machine.gpu,
}


def look(checks: Mapping[str, Callable[[], Iterator[Finding]]] = CHECKS) -> list[Finding]:
    """What is found, in order."""
    return [finding for name, check in checks.items() for finding in _safely(name, check)]


def _safely(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # what is broken here may break the look at it in any way
        found = f"can't be looked at: {type(error).__name__}: {error}"
        yield Finding(name, "warning", found, "see what the error says")
