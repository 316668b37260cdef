"""Fixtures that every test folder shares."""

import os

import pytest


@pytest.fixture(scope="session")
def model_path() -> str:
    """Folder of the real default model, fetched and converted on first use."""
    if path := os.environ.get("PARROT_TEST_MODEL"):
        return path
    from parrot_backend.engines.models import resolve_model

    return str(resolve_model(None).path)
