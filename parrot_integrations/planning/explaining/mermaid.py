"""A plan as a Mermaid flowchart: inputs, calls, transforms and graph breaks."""

from parrot_integrations.planning.explaining.drawing import Drawing, Kind

_BRACKETS: dict[Kind, tuple[str, str]] = {
    "input": ('(["', '"])'),
    "transform": ('[/"', '"/]'),
    "call": ('["', '"]'),
    "break": ('{{"', '"}}'),
}


def mermaid(drawing: Drawing) -> str:
    """The flowchart; a dotted line goes to an earlier call that shares a prefix."""
    lines = ["flowchart TD"]
    for node in drawing.nodes:
        before, behind = _BRACKETS[node.kind]
        label = "<br/>".join(map(_quoted, node.lines))
        lines.append(f"  {node.id}{before}{label}{behind}")
    lines += [f"  {source} --> {target}" for source, target in drawing.edges]
    lines += [f"  {one} -. {text} .- {other}" for one, other, text in drawing.shared]
    return "\n".join(lines)


def _quoted(label: str) -> str:
    """A label inside quotes; what Mermaid or HTML would read is written as an entity."""
    label = label.replace("#", "#35;").replace('"', "#quot;")
    return " ".join(label.replace("<", "#lt;").replace(">", "#gt;").split())
