"""What `/openapi.json` says is true of what the server does, whatever it is sent."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from parrot_backend.serving.limits import Limits
from tests.doubles import ScriptedEngine
from tests.servers import serving

# 503 and 504 are told where they can come: what is full, and a wait that ran out.
CONFIGURATION = """
continue-on-failure = true
[generation]
max-examples = 15
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503", "504"]
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


@pytest.mark.parametrize(
    "routes",
    [
        pytest.param(("--exclude-path-regex", "^/v1/engines/"), id="with their engine"),
        pytest.param(("--include-path-regex", "^/v1/engines"), id="that may take it away"),
    ],
)
def test_every_route_keeps_to_its_schema(routes: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    limits = Limits(wait_seconds=0.05, header_seconds=5.0)
    with serving(ScriptedEngine(lambda _: "ok"), limits=limits) as url:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--phases", "examples,coverage,fuzzing,stateful", "--mode", "all"),
            *routes,
            *("--checks", ",".join(CHECKS), "--seed", "11", "--no-color"),
            *("--request-timeout", "20", "--suppress-health-check", "all"),
        ]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2000:]


def test_every_error_is_in_the_schema_and_no_other() -> None:
    with serving(ScriptedEngine()) as url:
        paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    told = {
        (path, method): set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert all({"401", "403", "500", "503"} <= statuses for statuses in told.values())
    assert all(statuses & {"200", "201"} for statuses in told.values())
    assert not any("422" in statuses for statuses in told.values())
    assert {"400", "404", "409", "413", "429"} <= told["/v1/sessions", "post"]
    bodies = {key for key in told if "requestBody" in paths[key[0]][key[1]]}
    assert all({"400", "408", "413"} <= told[key] for key in bodies)
    assert len(bodies) == 9
