"""Who writes tool calls, as serving finds it out when tools are first offered."""

from parrot_backend.doctor.engine.patient import Patient
from parrot_backend.doctor.findings import Finding
from parrot_backend.endpoints.upstream.requests import tools_advice


async def check(patient: Patient) -> Finding:
    """See the module."""
    tools = patient.dialect.tools
    if tools == "ask":
        tools = await patient.does_tools()
    if tools == "native":
        return Finding("tools", "ok", "called by the engine itself")
    if tools == "ours" and patient.dialect.structured == "structured_outputs":
        return Finding("tools", "ok", "calls are written by a grammar of Parrot's, and obey it")
    advice = f"requests with tools are refused: {tools_advice(patient.dialect)}"
    return Finding("tools", "missing", "neither called by the engine nor by a grammar", advice)
