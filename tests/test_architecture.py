"""Who may import whom: the contracts in pyproject.toml, and what each package really loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH = {"torch", "transformers"}
WEB = {"fastapi", "starlette", "uvicorn"}


def loaded_by(module: str) -> set[str]:
    """Top-level names in `sys.modules` after importing `module` in a fresh interpreter."""
    code = f"import json, sys, {module}; print(json.dumps([*sys.modules]))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("parrot_integrations.langchain", TORCH | WEB | {"llama_index"}),
        ("parrot_integrations.llama_index", TORCH | WEB | {"langchain_core"}),
        ("parrot_integrations.planning", TORCH | WEB | {"langchain_core", "llama_index"}),
        ("parrot_integrations.client", TORCH | WEB | {"langchain_core", "llama_index"}),
        ("parrot_backend.wire.protocol", TORCH | WEB | {"httpx"}),
        ("parrot_backend.program", TORCH | WEB | {"httpx"}),
        ("parrot_backend.cli", TORCH | WEB),
        ("parrot_backend.api.app", TORCH),
        ("parrot_backend.server", TORCH),
        ("parrot_backend.endpoints.process.endpoint", TORCH | WEB),
    ],
)
def test_importing_loads_nothing_foreign(module, foreign):
    loaded = loaded_by(module)
    assert module.partition(".")[0] in loaded
    assert not loaded & foreign
