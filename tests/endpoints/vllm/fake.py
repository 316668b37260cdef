"""A command that behaves like `vllm serve` as far as its process can be seen, for tests.

`python fake.py serve MODEL --port N ...`; what it does wrong is among the arguments.
"""

import argparse
import http.server
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(prog="vllm serve")
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--port", type=int)
    parser.add_argument("--dies-with")
    parser.add_argument("--dies-after-first", type=Path)
    parser.add_argument("--never", action="store_true")
    parser.add_argument("--helper", type=Path)
    args, _ = parser.parse_known_args()
    print(f"(APIServer pid={os.getpid()}) INFO 11-27 18:00:00 [api.py:1] hello", flush=True)
    print("key" if os.environ.get("VLLM_API_KEY") else "no key", flush=True)
    if args.helper:
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        args.helper.write_text(str(helper.pid))
    if args.dies_after_first:
        if args.dies_after_first.exists():
            args.dies_with = "OSError: the second time"
        args.dies_after_first.touch()
    if args.dies_with:
        print("Traceback (most recent call last):", file=sys.stderr)
        print(f"(EngineCore pid=1) ERROR 11-27 18:00:00 [core.py:1] {args.dies_with}", flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
        sys.exit(1)
    if args.never:
        time.sleep(600)
    server = http.server.HTTPServer(("127.0.0.1", args.port), _Health)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()


if __name__ == "__main__":
    main()
