"""What the routes share: the serving core of their app."""

from fastapi import Request

from parrot_backend.serving.core import ServingCore


def core_of(http: Request) -> ServingCore:
    """The serving core that the app was made with."""
    core: ServingCore = http.app.state.core
    return core
