"""Which backend a client is of, and who asks: what is given, else what the environment says."""

import os
from urllib.parse import urlsplit

from parrot_integrations.client import managed
from parrot_integrations.client.transport.connections import UNIX


def is_named(base_url: str | None) -> bool:
    """Whether a backend is named, here or in the environment; else one is managed."""
    return bool(base_url or os.environ.get("PARROT_BASE_URL"))


def settings(
    base_url: str | None, api_key: str | None, model: str | None
) -> tuple[str | None, str | None, str | None]:
    """The three with the environment's values in place of None; a managed backend's URL is None."""
    base_url = base_url or os.environ.get("PARROT_BASE_URL")
    api_key = api_key or os.environ.get("PARROT_API_KEY")
    root = _root(base_url) if base_url else None
    name = managed.named_model(model)
    # A folder's stays what it was here, wherever the program goes.
    return root, api_key or None, managed.full_name(name) if name and root is None else name


def _root(base_url: str) -> str:
    if base_url.startswith(UNIX):
        return base_url
    root = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
    url = urlsplit(root)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(
            f"base_url must look like http://127.0.0.1:8642 or unix:/path, not {base_url!r}"
        )
    return root
