"""What the server and the process of its engine write on stderr."""

import logging


def log_to_stderr() -> None:
    """Only our own messages: transformers and uvicorn write theirs themselves."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("parrot: %(message)s"))
    ours = logging.getLogger("parrot_backend")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
