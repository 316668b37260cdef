"""The command line: `parrot serve`, `parrot ps`, `parrot stop`, `parrot models`, `parrot doctor`."""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_backend import DEFAULT_MODEL, DEFAULT_PORT, __version__
from parrot_backend.arguments import (
    Parser,
    count,
    generation_config,
    json_object,
    memory_size,
    port_number,
    quantization,
    seconds,
)
from parrot_backend.doctor.command import add_doctor
from parrot_backend.endpoints.base import HANG_SECONDS
from parrot_backend.endpoints.process.logs import log_to_stderr
from parrot_backend.extras import require_backend
from parrot_backend.models import add_models
from parrot_backend.resident.places import Place
from parrot_backend.resident.residency import Residency
from parrot_backend.resident.residents import Resident, residents, stop
from parrot_backend.tables import size_of, table
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError, ParrotError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from parrot_backend.api.access.keys import Keys
    from parrot_backend.endpoints.making import Making
    from parrot_backend.endpoints.process.recipe import Recipe
    from parrot_backend.endpoints.specs import EngineSpec
    from parrot_backend.serving.dispatch.fleet import Fleet
    from parrot_backend.serving.dispatch.policy import Policy

logger = logging.getLogger(__name__)

MAX_BATCH = 32
GRACE_SECONDS = 10
RESIDENT_GRACE_SECONDS = 1
LINGER_SECONDS = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what the user can do something about is one line on stderr and a code above 0."""
    given = sys.argv[1:] if argv is None else list(argv)
    own, behind = _split(given)
    args = _parser().parse_args(own, argparse.Namespace(behind=behind))
    log_to_stderr()
    try:
        args.command(args)
    except ParrotError as error:
        return _fail(error.message)
    except OSError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what stands behind `serve ... --` for vLLM."""
    if argv[:1] != ["serve"] or "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _fail(message: str) -> int:
    print("parrot: error:", " ".join(message.split()), file=sys.stderr)
    return 1


def _serve(args: argparse.Namespace) -> None:
    """Take the address first, then load: who asks for a port in use learns it at once.

    Models are loaded and run in processes of their own: this one never imports torch.
    """
    require_backend()
    from parrot_backend import server
    from parrot_backend.fleets import members_of
    from parrot_backend.serving.dispatch.fleet import Fleet

    if args.resident is not None:
        _serve_resident(args)
        return
    sock = server.bind_unix(args.uds) if args.uds else server.bind(args.host, args.port)
    with sock:
        if not (args.api_key or args.api_keys or server.is_local(sock)):
            raise InvalidRequestError(
                f"{args.host} can be reached from other machines: give an API key "
                "(PARROT_API_KEY, --api-key or --api-keys), or serve on 127.0.0.1"
            )
        fleet, making, url = Fleet(), _making(args), server.url_of(sock)
        members = members_of(_specs(args), making)
        server.run(
            _app(args, fleet, () if args.uds else [args.host]),
            sock,
            start=lambda: fleet.open(members),
            on_ready=lambda: logger.info(
                "ready at %s, OpenAI-compatible under /v1; Ctrl-C ends it", url
            ),
            on_hangup=_reload(args, fleet, making) if args.engines else None,
            grace_seconds=GRACE_SECONDS,
        )


def _serve_resident(args: argparse.Namespace) -> None:
    """Serve the processes of this user that have asked for it, and end when there are none."""
    from parrot_backend import server
    from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
    from parrot_backend.serving.dispatch.fleet import Fleet, Member

    residency = Residency(Place(args.resident.parent, args.resident.name), args.linger)
    with server.bind_unix(str(residency.place.socket)) as sock:
        residency.bound()
        fleet = Fleet()
        endpoint = ProcessEndpoint(
            _recipe(args),
            hang_seconds=args.hang_timeout,
            loading=lambda stage: residency.loading(stage.name, stage.done, stage.total),
        )
        server.run(
            _app(args, fleet),
            sock,
            start=lambda: fleet.open([Member("parrot", endpoint)]),
            on_ready=lambda: residency.ready(endpoint.card.model.name),
            unwanted=lambda is_busy: residency.unused(is_busy, lambda: endpoint.state == "failed"),
            grace_seconds=RESIDENT_GRACE_SECONDS,
        )
    residency.end()


def _specs(args: argparse.Namespace) -> "list[EngineSpec]":
    """The engines that are asked for, or the one that this machine is best served by."""
    from parrot_backend.endpoints.spec_files import read_specs
    from parrot_backend.endpoints.spec_names import with_key
    from parrot_backend.endpoints.specs import spec_of
    from parrot_backend.endpoints.vllm.finding import Machine
    from parrot_backend.fleets import engine_by_itself, tell_unknown_tenants

    engines = args.engine or []
    specs = [spec_of(e, args.behind if e.startswith("vllm:") else ()) for e in engines]
    specs += read_specs(args.engines) if args.engines else []
    if not specs and not _for_ours(args):
        specs.append(engine_by_itself(args.model, Machine.this(), args.behind))
    elif args.model is not None and not args.engines and [s.kind for s in specs] == ["upstream"]:
        specs = [specs[0].model_copy(update={"models": (args.model,)})]
    elif not specs or args.model is not None:
        specs.insert(0, spec_of(f"parrot:{args.model or DEFAULT_MODEL}"))
    _check_options(args, specs)
    keys = _keys(args)
    tell_unknown_tenants(specs, keys.names if keys else ())
    return with_key(specs, os.environ)


def _check_options(args: argparse.Namespace, specs: "Sequence[EngineSpec]") -> None:
    """What is said of an engine that is not there is refused."""
    if args.behind and not any(spec.kind == "vllm" and spec.arguments for spec in specs):
        raise InvalidRequestError(
            f"what stands behind -- is for vLLM, and there is no --engine vllm:MODEL: "
            f"{args.behind[0].partition('=')[0]}"
        )
    ours = _for_ours(args)
    if os.environ.get("PARROT_QUANTIZATION"):  # it is for whatever of ours the machine runs
        ours = [option for option in ours if option != "--quantization"]
    # A file may get one of ours later, and then the server has to know them.
    if ours and not args.engines and all(spec.kind != "parrot" for spec in specs):
        raise InvalidRequestError(
            "only Parrot's own engine understands this, and there is no --engine parrot:MODEL: "
            + ", ".join(ours)
        )


def _reload(
    args: argparse.Namespace, fleet: "Fleet", making: "Making"
) -> "Callable[[], Awaitable[None]]":
    """Reads the engines again, and takes what has changed into the fleet."""
    from parrot_backend.fleets import members_of

    async def reload() -> None:
        await fleet.reload(members_of(_specs(args), making))

    return reload


def _app(args: argparse.Namespace, fleet: "Fleet", names: Sequence[str] = ()) -> "FastAPI":
    from parrot_backend.api.app import create_app
    from parrot_backend.fleets import members_of_body
    from parrot_backend.serving.limits import Limits

    making = _making(args)
    return create_app(
        fleet,
        keys=_keys(args),
        names=names,
        limits=Limits(sessions=args.max_sessions),
        make_policy=_policy(args.scheduling_policy),
        make_member=lambda body: members_of_body(body, making),
    )


def _policy(name: str) -> "Callable[[], Policy] | None":
    """The order of calls; None is what the programs say."""
    from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst

    policies: dict[str, Callable[[], Policy]] = {"fcfs": FirstCome, "lpm": LongestPrefixFirst}
    return policies.get(name)


def _making(args: argparse.Namespace) -> "Making":
    from parrot_backend.endpoints.making import Making
    from parrot_backend.engines.store.generation_config import check_override

    check_override(args.override_generation_config)
    ours = {
        "kv_memory": args.kv_memory,
        "max_batch": args.max_batch,
        "quantization": args.quantization,
        "generation_config": args.generation_config,
        "override_generation_config": args.override_generation_config,
    }
    return Making(ours, args.hang_timeout)


def _recipe(args: argparse.Namespace) -> "Recipe":
    """Of our own engine."""
    from parrot_backend.endpoints.process.recipe import Recipe

    return Recipe({**_making(args).ours, "model": args.model})


def _for_ours(args: argparse.Namespace) -> list[str]:
    """What is said that only our own engine understands."""
    said = {
        "--kv-memory": args.kv_memory,
        "--max-batch": args.max_batch != MAX_BATCH,
        "--quantization": args.quantization,
        "--generation-config": args.generation_config != "auto",
        "--override-generation-config": args.override_generation_config,
    }
    return [option for option, value in said.items() if value]


def _keys(args: argparse.Namespace) -> "Keys | None":
    from parrot_backend.api.access.keys import Keys, read_keys

    if args.api_keys:
        return read_keys(args.api_keys)
    return Keys.single(args.api_key) if args.api_key else None


def _ps(args: argparse.Namespace) -> None:
    """The backends that run, as a table or for programs."""
    found = residents()
    if args.json:
        print(json.dumps([_as_json(each) for each in found], indent=2))
        return
    rows = [("MODEL", "PID", "STATE", "USERS", "SINCE", "MEMORY", "SOCKET")]
    for each in found:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.record.started))
        memory = "-" if each.memory is None else size_of(each.memory)
        users = "-" if each.users is None else str(each.users)
        pid = str(each.record.pid or "-")
        name, socket = each.record.name, str(each.place.socket)
        rows.append((name, pid, each.state, users, since, memory, socket))
    print(table(rows))


def _as_json(resident: Resident) -> dict[str, object]:
    of_its_own = asdict(resident.record)
    seen = {"state": resident.state, "users": resident.users, "memory": resident.memory}
    return {**of_its_own, **seen, "socket": str(resident.place.socket)}


def _stop(args: argparse.Namespace) -> None:
    """End the backends that are meant; without a name, the only one."""
    found = residents()
    meant = found if args.all else _named(args.name, found)
    for each in meant:
        stop(each)
        print(f"stopped {each.record.name} (process {each.record.pid})")


def _named(name: str | None, found: Sequence[Resident]) -> Sequence[Resident]:
    named = [
        each
        for each in found
        if name in (None, each.record.model, each.record.name, str(each.record.pid))
    ]
    if not named:
        raise NotFoundError(f"no backend runs for '{name}'" if name else "no backend runs")
    if len(named) > 1:
        told = ", ".join(f"{each.record.model} ({each.record.pid})" for each in named)
        raise InvalidRequestError(f"several run, name a process id or --all: {told}")
    return named


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="parrot", description="Serve LLM applications as whole graphs.")
    parser.add_argument("--version", action="version", version=f"parrot {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP"))
    ps = commands.add_parser("ps", help="the backends that were started for this user's programs")
    ps.add_argument("--json", action="store_true", help="for programs")
    ps.set_defaults(command=_ps)
    stop_parser = commands.add_parser("stop", help="end a backend that was started for programs")
    which = stop_parser.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", metavar="MODEL|PID", help="default: the only one")
    which.add_argument("--all", action="store_true", help="end all of them")
    stop_parser.set_defaults(command=_stop)
    add_doctor(commands)
    add_models(commands)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        help="bundled model, folder, GGUF file, hub id (with :QUANTIZATION for one of its GGUF files), "
        f"ollama:NAME or lmstudio:PUBLISHER/NAME (default: {DEFAULT_MODEL}); beside one "
        "--engine http://HOST:PORT, which of that server's models",
    )
    add(
        "--engine",
        action="append",
        metavar="ENGINE",
        help="what runs the model: vllm:MODEL (started here, with the flags behind --), "
        "http://HOST:PORT (a running server that speaks OpenAI's API, with the key in "
        "PARROT_ENGINE_API_KEY) or parrot:MODEL; several times for several",
    )
    add(
        "--engines",
        type=Path,
        metavar="FILE",
        help="engines with names, aliases, weights and limits, as YAML; SIGHUP reads it again",
    )
    add(
        "--quantization",
        type=quantization,
        metavar="int8",
        default=os.environ.get("PARROT_QUANTIZATION") or None,
        help="weights in 8 bits: up to twice as fast on CPUs, for Llama-like models "
        "(default: PARROT_QUANTIZATION)",
    )
    add(
        "--generation-config",
        type=generation_config,
        metavar="SOURCE",
        default="auto",
        help="what rules where a request names no temperature, top_p, top_k, min_p, "
        "penalty or max_tokens: the model's own generation_config.json (auto), that of "
        "another folder, or OpenAI's values (vllm) (default: %(default)s)",
    )
    add(
        "--override-generation-config",
        type=json_object,
        metavar="JSON",
        default={},
        help='values instead of those, such as \'{"temperature": 0.5, "max_new_tokens": 256}\'',
    )
    address = parser.add_mutually_exclusive_group()
    address.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    address.add_argument("--uds", metavar="PATH", help="Unix socket to serve on instead")
    address.add_argument("--resident", type=Path, metavar="PLACE", help=argparse.SUPPRESS)
    add(
        "--port",
        type=port_number,
        default=DEFAULT_PORT,
        help="0 takes a free one (default: %(default)s)",
    )
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("PARROT_API_KEY") or None,
        help="wanted of all but health checks; other users can see arguments, so rather set "
        "PARROT_API_KEY",
    )
    keys.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        default=os.environ.get("PARROT_API_KEYS") or None,
        help="tenants with keys and quotas, as TOML or JSON (default: PARROT_API_KEYS)",
    )
    add(
        "--kv-memory",
        type=memory_size,
        metavar="SIZE",
        help="memory for keys and values, such as 2GiB (default: a quarter of what is free)",
    )
    add("--max-batch", type=count, default=MAX_BATCH, metavar="N", help="sequences in one step")
    add(
        "--hang-timeout",
        type=count,
        default=int(HANG_SECONDS),
        metavar="SECONDS",
        help="an engine that makes no step for so long is started anew (default: %(default)s)",
    )
    add(
        "--scheduling-policy",
        choices=("graph", "fcfs", "lpm"),
        default="graph",
        help="which call goes first: what the graphs say, who came first, or the longest prefix, "
        "for comparison (default: %(default)s)",
    )
    add("--max-sessions", type=count, default=1024, metavar="N", help="sessions open at once")
    add(
        "--linger",
        type=seconds,
        default=os.environ.get("PARROT_LINGER") or LINGER_SECONDS,
        help=argparse.SUPPRESS,
    )
    parser.set_defaults(command=_serve)
