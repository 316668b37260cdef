"""Managed backends of the tests: the real command in real processes, with an engine that loads at once.

The model's name is that of a factory in `tests.endpoints.process.engines`.
"""

import os
import sys
import tempfile
from pathlib import Path

from parrot_backend.resident.places import Place
from parrot_backend.resident.records import read_record
from parrot_backend.resident.residents import residents, stop
from parrot_integrations.client.managed import backends, starting
from tests.servers import eventually


def command(place: Place, model: str) -> list[str]:
    serve = [sys.executable, "-m", "tests.residents", "serve"]
    return [*serve, "--resident", str(place.folder / place.key), "--model", model]


def use() -> None:
    """Have this process start them in place of ours."""
    starting.command = command


def pid_of(model: str) -> int:
    """Its process id, which one that is only starting tells soon."""
    place, pids = backends.backend(model).place, []

    def told() -> bool:
        record = read_record(place.record)
        pids.append(record and record.pid)
        return pids[-1] is not None

    assert eventually(told, timeout=60)
    return pids[-1]


def runtime_folder() -> Path:
    """A new one, with a path that is short enough for sockets, wherever pytest keeps its own."""
    return Path(tempfile.mkdtemp(prefix="parrot-test-", dir="/tmp"))


def leave() -> None:
    """Use none any more, as if this process had ended."""
    for known in backends._backends.values():
        if known._users is not None:
            os.close(known._users)
    backends._backends.clear()


def stop_those_in(runtime: Path) -> None:
    leave()
    for each in residents():
        if each.place.folder.is_relative_to(runtime) and each.record.pid is not None:
            stop(each)


if __name__ == "__main__":
    from parrot_backend import cli
    from tests.endpoints.process.engines import recipe

    cli._recipe = lambda args: recipe(args.model)  # type: ignore[assignment]
    sys.exit(cli.main())
