"""What `parrot doctor` prints: of an engine where a URL is given, else of this installation."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from parrot_backend.doctor.engine.examination import card_of, examine
from parrot_backend.doctor.engine.patient import Patient
from parrot_backend.doctor.findings import Finding, table
from parrot_backend.doctor.installation.checks import look
from parrot_backend.endpoints.cards import MeasuredCard, read_card, write_card
from parrot_backend.endpoints.keys import read_key
from parrot_backend.endpoints.upstream.address import Address
from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.recognize import Recognized, recognized
from parrot_backend.wire.errors import UnavailableError


class FaultsError(UnavailableError):
    """The doctor has found something that keeps Parrot from working."""


def tell(args: argparse.Namespace) -> None:
    """Print what is found.

    Raises:
        ParrotError: the engine can't be asked, or it or the installation has a fault.
    """
    if args.url is None:
        _tell_installation(look(), as_json=args.json)
    else:
        asyncio.run(_tell_engine(args))


def _tell_installation(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"findings": [each.as_json() for each in findings]}, indent=2))
    else:
        print(table(findings, "WHAT TO DO"))
    _fail_of(findings)


def _fail_of(findings: Sequence[Finding]) -> None:
    faults = [each.check for each in findings if each.level == "fault"]
    if faults:
        raise FaultsError(f"there is something to mend: {', '.join(faults)}")


async def _tell_engine(args: argparse.Namespace) -> None:
    fields = ("--api-key-env", "--api-key-file")
    address, key = Address.parse(args.url), read_key(args.api_key_env, args.api_key_file, fields)
    client = Client(address, key)
    try:
        known = await recognized(client, args.model)
        model = known.model
        patient = Patient(client, model.name, known.dialect, model.context_length, quick=args.quick)
        findings = await examine(patient, _progress())
    finally:
        await client.aclose()
    told = (address.root, model.name, known.version)
    card = card_of(findings, read_card(*told))
    if not args.no_card and any(each.facts for each in findings):
        place = write_card(*told, card)
        _note(f"kept for serving, from the next start on: {place}")
    if args.json:
        print(json.dumps(_as_json(address.root, known, findings, card), indent=2))
    else:
        print(f"{known.engine}, model {model.name}", end="\n\n")
        print(table(findings, "WHAT IT COSTS"))
    _fail_of(findings)


def _as_json(
    url: str, known: Recognized, findings: Sequence[Finding], card: MeasuredCard
) -> dict[str, Any]:
    return {
        "url": url,
        "engine": known.dialect.name,
        "version": known.version,
        "model": known.model.name,
        "findings": [each.as_json() for each in findings],
        "card": card.model_dump(mode="json", exclude_none=True),
    }


def _note(words: str) -> None:
    """For people who look; programs read what is printed."""
    print(f"parrot: {words}", file=sys.stderr)


def _progress() -> Callable[[str], None]:
    """Tells people which check runs, where they look."""
    if not sys.stderr.isatty():
        return lambda check: None
    return lambda check: print(f"\r\x1b[K{check} ...", end="\r", file=sys.stderr, flush=True)
