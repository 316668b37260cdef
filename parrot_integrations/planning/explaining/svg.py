"""A drawing as SVG, laid out here: it is shown where no network and no script is."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from parrot_integrations.planning.explaining.drawing import Drawing, Drawn, Kind
from parrot_integrations.planning.explaining.marking import short

_WIDTH, _GAP, _RISE, _LINE, _MARGIN = 320, 24, 44, 16, 8
_CHARACTERS = 44
_FILLS: dict[Kind, str] = {
    "input": "#8883",
    "transform": "#48c3",
    "call": "#2a63",
    "break": "#d623",
}


@dataclass(frozen=True, slots=True)
class _Box:
    """A node and where it stands."""

    node: Drawn
    x: float
    y: float

    @property
    def height(self) -> float:
        return _LINE * len(self.node.lines) + _LINE

    @property
    def middle(self) -> float:
        return self.x + _WIDTH / 2


def svg(drawing: Drawing) -> str:
    """The drawing, top to bottom, in the colours of the text around it; empty without nodes."""
    if not drawing.nodes:
        return ""
    boxes = _placed(drawing)
    width = max(box.x for box in boxes.values()) + _WIDTH + _MARGIN
    height = max(box.y + box.height for box in boxes.values()) + _MARGIN
    parts = [_edge(boxes[source], boxes[target]) for source, target in drawing.edges]
    parts += [_box(box) for box in boxes.values()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="12">'
        '<defs><marker id="parrot-tip" markerWidth="8" markerHeight="8" refX="7" refY="4" '
        'orient="auto"><path d="M0,1 L7,4 L0,7 z" fill="currentColor"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _placed(drawing: Drawing) -> dict[str, _Box]:
    """Each layer below those that it reads from, and its nodes in the order of what they read."""
    before = defaultdict(list)
    for source, target in drawing.edges:
        before[target].append(source)
    rows: defaultdict[int, list[Drawn]] = defaultdict(list)
    layers = _layers(drawing)
    for node in drawing.nodes:
        rows[layers[node.id]].append(node)
    widest = max(map(len, rows.values()))
    boxes: dict[str, _Box] = {}
    y: float = _MARGIN
    for _, row in sorted(rows.items()):
        ordered = sorted(row, key=lambda node: _pull(node, before, boxes))
        x = _MARGIN + (widest - len(row)) * (_WIDTH + _GAP) / 2
        for place, node in enumerate(ordered):
            boxes[node.id] = _Box(node, x + place * (_WIDTH + _GAP), y)
        y += max(boxes[node.id].height for node in row) + _RISE
    return boxes


def _pull(node: Drawn, before: Mapping[str, Sequence[str]], boxes: Mapping[str, _Box]) -> float:
    """The middle of what a node reads."""
    above = [boxes[name].x for name in before[node.id] if name in boxes]
    return sum(above) / len(above) if above else 0.0


def _layers(drawing: Drawing) -> dict[str, int]:
    """One more than the deepest that a node reads; groups that read each other begin with the first."""
    behind, missing = defaultdict(list), {node.id: 0 for node in drawing.nodes}
    for source, target in drawing.edges:
        behind[source].append(target)
        missing[target] += 1
    layers, depth = dict[str, int](), dict.fromkeys(missing, 0)
    rest = iter(drawing.nodes)
    ready = [name for name, count in missing.items() if not count]
    while len(layers) < len(missing):
        if not ready:
            ready = [next(node.id for node in rest if node.id not in layers)]
        name = ready.pop()
        layers[name] = depth[name]
        for target in behind[name]:
            missing[target] -= 1
            if target not in layers:
                depth[target] = max(depth[target], depth[name] + 1)
                if not missing[target]:
                    ready.append(target)
    return layers


def _edge(source: _Box, target: _Box) -> str:
    top, bottom = source.y + source.height, target.y
    bend = max(_RISE / 2, (bottom - top) / 2)
    return (
        f'<path d="M{source.middle:g},{top:g} C{source.middle:g},{top + bend:g} '
        f'{target.middle:g},{bottom - bend:g} {target.middle:g},{bottom:g}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.6" marker-end="url(#parrot-tip)"/>'
    )


def _box(box: _Box) -> str:
    """A picture of its own, for that ends what is too wide at its border."""
    dashes = ' stroke-dasharray="4 3"' if box.node.kind == "break" else ""
    return (
        f'<svg x="{box.x:g}" y="{box.y:g}" width="{_WIDTH}" height="{box.height:g}">'
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{box.height - 1:g}" rx="6" '
        f'fill="{_FILLS[box.node.kind]}" stroke="currentColor" stroke-opacity="0.5"{dashes}/>'
        f"{''.join(_lines(box.node))}</svg>"
    )


def _lines(node: Drawn) -> Iterator[str]:
    for number, line in enumerate(node.lines):
        weight = ' font-weight="bold"' if number == 0 and len(node.lines) > 1 else ""
        yield (
            f'<text x="50%" y="{_LINE * (number + 1) + 4}" text-anchor="middle" '
            f'fill="currentColor"{weight}><title>{escape(line)}</title>'
            f"{escape(short(line, _CHARACTERS))}</text>"
        )
