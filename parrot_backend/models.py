"""The commands `parrot models list`, `pull` and `rm`."""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parrot_backend import DEFAULT_MODEL
from parrot_backend.engines import stages
from parrot_backend.engines.store.catalog import pull
from parrot_backend.engines.store.listing import ModelListing, list_models
from parrot_backend.engines.store.removing import remove_model
from parrot_backend.extras import require_backend
from parrot_backend.tables import size_of, table

_HEADS = ("NAME", "SOURCE", "LICENCE", "SIZE", "MADE", "RUNS", "PATH")
_LOOK_SECONDS = 0.2
_LINE_SECONDS = 10.0


def add_models(commands: Any) -> None:
    """Add the commands to those of `parrot`."""
    parser = commands.add_parser("models", help="the models on this disk")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list",
        help="list them, whoever keeps them: how large they are, what Parrot has made of them, and "
        "whether they run (fast: by its own kernels)",
    )
    listing.set_defaults(command=_list)
    pulling = actions.add_parser(
        "pull",
        help="have ready what serve --model takes: fetch a model, convert a GGUF file; prints its "
        "folder",
    )
    pulling.add_argument("name", nargs="?", default=DEFAULT_MODEL, metavar="NAME")
    pulling.set_defaults(command=_pull)
    removing = actions.add_parser(
        "rm",
        help="remove what Parrot keeps of a model, and one of the hub's from the hub's cache",
    )
    removing.add_argument("name", metavar="NAME", help="as the list names it")
    removing.set_defaults(command=_remove)


def _list(args: argparse.Namespace) -> None:
    print(table([_HEADS, *map(_row, list_models())]))


def _row(model: ModelListing) -> tuple[str, ...]:
    size = size_of(model.disk_bytes) if model.disk_bytes else "-"
    if model.download_bytes and not model.pulled:
        size = f"{size_of(model.download_bytes)} to fetch"
    made = size_of(model.made_bytes) if model.made_bytes else "-"
    path = str(model.path) if model.path.exists() else "-"
    return (model.name, model.source, model.licence, size, made, model.outlook, path)


def _pull(args: argparse.Namespace) -> None:
    require_backend()
    with _progress():
        folder = pull(args.name)
    print(folder)


def _remove(args: argparse.Namespace) -> None:
    require_backend()
    removed = remove_model(args.name)
    print(f"freed {size_of(removed.bytes)}" + (f"; {removed.stays}" if removed.stays else ""))


@contextmanager
def _progress() -> Iterator[None]:
    """How far the block is, on a line of a terminal, or else now and then in a line of its own."""
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(over,), daemon=True, name="telling of a pull")
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(over: threading.Event) -> None:
    is_terminal, told = sys.stderr.isatty(), time.monotonic()
    while not over.wait(_LOOK_SECONDS):
        if is_terminal:
            print(f"\033[K{_far()}\r", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - told > _LINE_SECONDS:
            told = time.monotonic()
            print(f"parrot: {_far()}", file=sys.stderr, flush=True)
    if is_terminal:
        print("\033[K", end="", file=sys.stderr, flush=True)


def _far() -> str:
    stage = stages.current()
    if not stage.total:
        return stage.name
    share = 100 * stage.done // stage.total
    return f"{stage.name}: {size_of(stage.done)} of {size_of(stage.total)} ({share} %)"
