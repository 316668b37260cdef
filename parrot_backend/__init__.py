"""The backend: runs programs of semantic calls on a prefix-sharing engine."""

__version__ = "0.1.0"

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_PORT = 8642
