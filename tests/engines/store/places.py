"""Lays models out on the disk as Ollama and the hub's cache do, and serves them as the hub."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
}


def small_gguf(path: Path, architecture: str = "llama", **keys: Any) -> Path:
    """A real file of one tensor, with what tells of a model and no weights of one.

    `keys` (dots as `__`) are added below the architecture.
    """
    import numpy as np
    from gguf import GGUFWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture)
    numbers = {"embedding_length": 64, "attention__head_count": 4, "context_length": 2048}
    for key, value in {**numbers, **keys}.items():
        writer.add_uint32(f"{architecture}.{key.replace('__', '.')}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def in_ollama(models: Path, name: str, gguf: Path, **changes: Any) -> Path:
    """Put a file where Ollama has it, as `HOST/NAMESPACE/MODEL/TAG`; its manifest's path.

    `changes` are of the model's layer; `layers` are more of them, by kind and digest.
    """
    content = gguf.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    blob = models / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    others = changes.pop("layers", {"template": "sha256:" + "1" * 64})
    layers = [
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
        | {"size": len(content), **changes},
        *(
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": other, "size": 1}
            for kind, other in others.items()
        ),
    ]
    manifest = models / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"digest": "sha256:" + "2" * 64, "size": 1},
                "layers": layers,
            }
        )
    )
    return manifest


def whole_model(config: Mapping[str, Any] = LLAMA) -> dict[str, bytes]:
    """The files of a model, as far as the store looks into them."""
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    }


def in_hub_cache(cache: Path, repository: str, files: Mapping[str, bytes]) -> Path:
    """Put files where the hub's own library has them; the folder of the snapshot."""
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / SHA
    for name, content in files.items():
        blob = place / "blobs" / hashlib.sha256(content).hexdigest()
        link = snapshot / name
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(SHA)
    return snapshot


class Hub(ThreadingHTTPServer):
    """Answers as huggingface.co does to whoever fetches a model; `asked` are the paths, in order."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _HubRequest)
        self.repositories = repositories
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _HubRequest(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        for repository, files in self.server.repositories.items():
            if path.startswith(f"/api/models/{repository}/tree/"):
                self._answer([_entry(name, content) for name, content in files.items()])
                return
            if path.startswith(f"/api/models/{repository}"):
                siblings = [{"rfilename": name, "size": len(c)} for name, c in files.items()]
                self._answer({"id": repository, "sha": SHA, "siblings": siblings})
                return
            if path.startswith(f"/{repository}/resolve/"):
                self._file(files[path.split("/", 5)[5]])
                return
        self._answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def _answer(self, body: Any, status: int = 200, **headers: str) -> None:
        self._send(
            json.dumps(body).encode(), status, {"Content-Type": "application/json"} | headers
        )

    def _file(self, content: bytes) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(content, 200, {"ETag": etag, "X-Repo-Commit": SHA})

    def _send(self, content: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}


@contextmanager
def serving_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """A hub of these repositories and their files, on this machine."""
    with Hub(repositories) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
