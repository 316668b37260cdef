"""The command `parrot doctor`."""

import argparse
import os
from pathlib import Path
from typing import Any


def add_doctor(commands: Any) -> None:
    """Add the command to those of `parrot`."""
    parser = commands.add_parser(
        "doctor", help="measure what an engine does, or check this installation"
    )
    add = parser.add_argument
    add("url", nargs="?", metavar="URL", help="an engine; without one, the installation is checked")
    add("--model", metavar="NAME", help="which of the engine's models (default: its only one)")
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="the variable with the engine's API key (default: PARROT_ENGINE_API_KEY)",
    )
    keys.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="the file with the engine's API key"
    )
    add("--quick", action="store_true", help="shorter and less certain")
    add("--no-card", action="store_true", help="don't keep what was measured for serving")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(command=_doctor)


def _doctor(args: argparse.Namespace) -> None:
    """What it needs is imported by those who ask for it."""
    from parrot_backend.doctor.telling import tell
    from parrot_backend.endpoints.upstream.address import KEY_VARIABLE

    if args.api_key_file is None and args.api_key_env is None and os.environ.get(KEY_VARIABLE):
        args.api_key_env = KEY_VARIABLE
    tell(args)
