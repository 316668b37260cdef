"""The command line: `parrot serve`, `parrot models pull`, `parrot models list`."""

import argparse
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_backend import __version__
from parrot_backend.arguments import (
    Parser,
    count,
    generation_config,
    json_object,
    memory_size,
    port_number,
    quantization,
)
from parrot_backend.endpoints.process.logs import log_to_stderr
from parrot_backend.engines.store.catalog import (
    DEFAULT_MODEL,
    list_models,
    pull,
)
from parrot_backend.wire.errors import InvalidRequestError, ParrotError

if TYPE_CHECKING:
    from parrot_backend.api.access.keys import Keys
    from parrot_backend.endpoints.process.recipe import Recipe
    from parrot_backend.serving.dispatch.policy import Policy

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8642
BACKEND_MODULES = (
    "accelerate",
    "fastapi",
    "filelock",
    "gguf",
    "safetensors",
    "torch",
    "transformers",
    "uvicorn",
)
GRACE_SECONDS = 10
MANAGED_GRACE_SECONDS = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what the user can do something about is one line on stderr and a code above 0."""
    args = _parser().parse_args(argv)
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


def _fail(message: str) -> int:
    print("parrot: error:", " ".join(message.split()), file=sys.stderr)
    return 1


def _serve(args: argparse.Namespace) -> None:
    """Take the address first, then load: who asks for a port in use learns it at once.

    The model is loaded and run in a process of its own: this one never imports torch.
    """
    _require_backend()
    from parrot_backend import server
    from parrot_backend.api.app import create_app
    from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
    from parrot_backend.serving.limits import Limits

    if args.managed is not None:
        server.end_with_parent(args.managed)
    sock = server.bind_unix(args.uds) if args.uds else server.bind(args.host, _port(args))
    with sock:
        if not (args.api_key or args.api_keys or server.is_local(sock)):
            raise InvalidRequestError(
                f"{args.host} can be reached from other machines: give an API key "
                "(PARROT_API_KEY, --api-key or --api-keys), or serve on 127.0.0.1"
            )
        endpoint = ProcessEndpoint(_recipe(args), hang_seconds=args.hang_timeout)
        server.run(
            create_app(
                endpoint,
                keys=_keys(args),
                names=() if args.uds else [args.host],
                limits=Limits(sessions=args.max_sessions),
                policy=_policy(args.scheduling_policy),
            ),
            sock,
            start=endpoint.start,
            on_ready=lambda: _announce(args, server.url_of(sock)),
            grace_seconds=GRACE_SECONDS if args.managed is None else MANAGED_GRACE_SECONDS,
        )


def _policy(name: str) -> "Policy | None":
    """The order of calls; None is what the programs say."""
    from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst

    match name:
        case "fcfs":
            return FirstCome()
        case "lpm":
            return LongestPrefixFirst()
        case _:
            return None


def _recipe(args: argparse.Namespace) -> "Recipe":
    from parrot_backend.endpoints.process.recipe import Recipe
    from parrot_backend.engines.store.generation_config import check_override

    check_override(args.override_generation_config)
    return Recipe(
        {
            "model": args.model,
            "kv_memory": args.kv_memory,
            "max_batch": args.max_batch,
            "quantization": args.quantization,
            "generation_config": args.generation_config,
            "override_generation_config": args.override_generation_config,
        }
    )


def _port(args: argparse.Namespace) -> int:
    if args.port is not None:
        return int(args.port)
    return DEFAULT_PORT if args.managed is None else 0


def _keys(args: argparse.Namespace) -> "Keys | None":
    from parrot_backend.api.access.keys import Keys, read_keys

    if args.api_keys:
        return read_keys(args.api_keys)
    return Keys.single(args.api_key) if args.api_key else None


def _announce(args: argparse.Namespace, url: str) -> None:
    if args.managed is not None:
        print(json.dumps({"base_url": url, "pid": os.getpid()}), flush=True)
    else:
        logger.info("ready at %s, OpenAI-compatible under /v1; Ctrl-C ends it", url)


def _models_pull(args: argparse.Namespace) -> None:
    _require_backend()
    print(pull(args.name))


def _models_list(args: argparse.Namespace) -> None:
    rows = [("NAME", "SOURCE", "LICENCE", "DOWNLOAD", "ON DISK", "PATH")]
    for model in list_models():
        disk, path = (_megabytes(model.disk_bytes), str(model.path)) if model.pulled else ("-", "-")
        download = _megabytes(model.download_bytes) if model.download_bytes else "-"
        rows.append((model.name, model.source, model.licence, download, disk, path))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _require_backend() -> None:
    missing = [name for name in BACKEND_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidRequestError(
            f"the backend is not installed ({', '.join(missing)} missing): "
            "pip install 'parrot-integrations[backend]'"
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="parrot", description="Serve LLM applications as whole graphs.")
    parser.add_argument("--version", action="version", version=f"parrot {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP"))
    models = commands.add_parser("models", help="the models that Parrot keeps")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    pull_parser = actions.add_parser(
        "pull", help="fetch a model, or convert a GGUF file, and print its folder"
    )
    pull_parser.add_argument("name", nargs="?", default=DEFAULT_MODEL, metavar="NAME")
    pull_parser.set_defaults(command=_models_pull)
    actions.add_parser("list", help="list them").set_defaults(command=_models_list)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help=f"bundled model, folder, GGUF file or hub id (default: {DEFAULT_MODEL})")
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
        "repetition_penalty or max_tokens: the model's own generation_config.json (auto), that of "
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
    add("--port", type=port_number, help=f"0 takes a free one (default: {DEFAULT_PORT})")
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
    add("--max-batch", type=count, default=32, metavar="N", help="sequences in one step")
    add(
        "--hang-timeout",
        type=count,
        default=60,
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
    add("--managed", type=count, metavar="PID", help=argparse.SUPPRESS)
    parser.set_defaults(command=_serve)
