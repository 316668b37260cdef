"""Which versions of Python and of packages are installed, and whether ours works with them."""

import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from parrot_backend import __version__
from parrot_backend.doctor.findings import Finding

PACKAGE = "parrot-integrations"
# What a user may have without it; its extra says which versions work.
_FRAMEWORKS = {"langchain-core": "langchain", "llama-index-core": "llama-index", "vllm": "vllm"}


def look() -> Iterator[Finding]:
    """Python and Parrot; each package of the backend; the frameworks that are there."""
    try:
        ours = metadata.metadata(PACKAGE)
        wanted = _wanted(metadata.requires(PACKAGE) or [])
    except metadata.PackageNotFoundError:
        yield Finding("parrot", "warning", f"{__version__}, not installed by pip", "pip install it")
        return
    yield Finding("parrot", "ok", __version__)
    yield _python(ours["Requires-Python"] or "")
    needed = [name for (name, extra) in wanted if extra in ("", "backend")]
    yield from _needed({name: wanted.get((name, "")) or wanted[name, "backend"] for name in needed})
    for name, extra in _FRAMEWORKS.items():
        yield _framework(name, extra, wanted.get((name, extra), ""))


def _wanted(requirements: list[str]) -> Mapping[tuple[str, str], str]:
    """The versions of each package and extra, as in `>=2.9,<3`."""
    found = {}
    for line in requirements:
        requirement, _, marker = line.partition(";")
        name, specifier = re.match(
            r"\s*([\w.-]+)(?:\[[^\]]*\])?\s*(.*)", requirement, re.S
        ).groups()  # type: ignore[union-attr]
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        found[name.lower(), extra[1] if extra else ""] = specifier.strip(" ()")
    return found


def installed(name: str) -> str | None:
    """The version of a package; None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_in(version: str, specifier: str) -> bool:
    """Whether a version is one of those.

    Raises:
        ImportError: there is nothing that knows the order of versions.
    """
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def _python(specifier: str) -> Finding:
    found = platform.python_version()
    if specifier and not is_in(found, specifier):
        advice = f"make an environment with Python {specifier}"
        return Finding("python", "fault", f"{found}, not {specifier}", advice)
    return Finding("python", "ok", found)


def _needed(wanted: Mapping[str, str]) -> Iterator[Finding]:
    """One line for all that are as they should be, and one for each that is not."""
    versions = {name: installed(name) for name in wanted}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        advice = f"pip install '{PACKAGE}[backend]'"
        yield Finding("backend", "warning", f"not installed: {', '.join(missing)}", advice)
    good = []
    for name, version in versions.items():
        if version is None:
            continue
        if is_in(version, wanted[name]):
            good.append(f"{name} {version}")
        else:
            advice = f"pip install '{name}{wanted[name]}'"
            yield Finding(name, "fault", f"{version}, not {wanted[name]}", advice)
    told = [each for each in good if each.split()[0] in ("torch", "transformers")]
    rest = f"{len(good) - len(told)} others" if told else f"{len(good)} packages"
    yield Finding("packages", "ok", ", ".join([*told, rest]))


def _framework(name: str, extra: str, specifier: str) -> Finding:
    version = installed(name)
    if version is None:
        return Finding(name, "ok", "not installed")
    if is_in(version, specifier):
        return Finding(name, "ok", version)
    advice = f"pip install '{PACKAGE}[{extra}]'"
    return Finding(name, "fault", f"{version}, not {specifier}", advice)
