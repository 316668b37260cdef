"""A real HTTP server whose answers a test writes: for what a healthy backend never says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer; `cut` ends the connection before the body is whole, None as status without any."""

    status: int | None = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def failure(status: int, code: str | None = None, **headers: str) -> Reply:
    detail = {"message": f"says {status}", "type": "t", "param": "p", "code": code}
    return Reply(status, json.dumps({"error": detail}).encode(), headers)


def events(*data: Any, cut: bool = False) -> Reply:
    lines = [d if isinstance(d, str) else json.dumps(d) for d in data]
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    return Reply(200, body, {"Content-Type": "text/event-stream"}, cut)


class Replying:
    """`replies` are used up in order, the last again and again; `requests` has what came."""

    def __init__(self, url: str, replies: list[Reply]) -> None:
        self.url = url
        self.replies = replies
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []

    def next(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def replying(*replies: Reply) -> Iterator[Replying]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.script = Replying(f"http://127.0.0.1:{server.server_port}", list(replies))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        script = self.server.script
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        script.requests.append((self.command, self.path, headers, json.loads(body or "null")))
        self._send(script.next())

    do_GET = do_DELETE = do_POST  # noqa: N815 - the standard library's names

    def _send(self, reply: Reply) -> None:
        self.close_connection = reply.cut or reply.status is None
        if reply.status is None:
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body) + 100 * reply.cut))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_: Any) -> None:
        pass
