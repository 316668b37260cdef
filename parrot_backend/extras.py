"""What `pip install 'parrot-integrations[backend]'` installs; the command itself runs without it."""

import importlib.util

from parrot_backend.wire.errors import InvalidRequestError

BACKEND_MODULES = (
    "accelerate",
    "fastapi",
    "filelock",
    "gguf",
    "huggingface_hub",
    "jinja2",
    "llguidance",
    "numba",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
    "yaml",
)


def require_backend() -> None:
    """See that all of it is there.

    Raises:
        InvalidRequestError: something is missing; says what to install.
    """
    missing = [name for name in BACKEND_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidRequestError(
            f"the backend is not installed ({', '.join(missing)} missing): "
            "pip install 'parrot-integrations[backend]'"
        )
