"""llama.cpp's server, out of xllamacpp: for an interpreter that has it, and nothing of ours.

    python llama_server.py MODEL.gguf [--slots 4] [--context 4096] [--port 0]
        [--threads 1]

`--context` is of each slot. Several threads wait for one another by spinning: beside other processes
one is quicker. Writes `at ADDRESS` when it listens, and ends with its stdin.
"""

import argparse
import os
import sys

import xllamacpp


def _parameters() -> xllamacpp.CommonParams:
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("--slots", type=int, default=4)
    options.add_argument("--context", type=int, default=4096)
    options.add_argument("--port", type=int, default=0)
    cores = len(os.sched_getaffinity(0))
    options.add_argument("--threads", type=int, default=cores)
    options.add_argument("--alias", default="smollm2-135m-instruct", help="the model's name")
    args = options.parse_args()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = args.model
    parameters.n_parallel, parameters.n_ctx = args.slots, args.slots * args.context
    parameters.hostnames, parameters.port = ["127.0.0.1"], args.port
    parameters.model_alias = {args.alias}
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = args.threads
    return parameters


def main() -> None:
    """Serve until stdin ends."""
    server = xllamacpp.Server(_parameters())
    print(f"\nat {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
