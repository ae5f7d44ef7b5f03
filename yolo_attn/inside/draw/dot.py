"""The same drawing for Graphviz: boxes, arrows and columns as text, to lay out and style otherwise."""

from __future__ import annotations

from .columns import grid_of
from .picture import FILLS, STATES, box_id
from .scene import REMOVED, Item, Scene
from .texts import texts

__all__ = ["dot_of"]


def dot_of(scene: Scene, language: str = "en") -> str:
    """Return a model in Graphviz's language.

    Args:
        scene: What is drawn.
        language: ``en`` or ``zh``.

    Raises:
        UsageError: There are no labels in this language.
    """
    say = texts(language)
    title = say("beside", a=scene.name, b=scene.base) if scene.base else scene.name
    lines = [
        "digraph model {",
        f'  graph [label={_text(title)}, labelloc="t", rankdir="TB", nodesep=0.35, ranksep=0.3];',
        '  node [shape="box", style="rounded,filled", fontname="Helvetica", fontsize=10];',
        f"  {_name(None)} [label={_text(say('image') + chr(10) + f'{scene.channels} · {scene.imgsz[0]}×{scene.imgsz[1]}')}, {_look('image', '')}];",
    ]
    for k, column in enumerate(grid_of(scene).columns):
        key = column.part if column.part != "neck" else f"neck{column.way}"
        lines.append(f'  subgraph cluster_{k} {{ label={_text(say(key))}; color="#d5d5da";')
        for item in column.items:
            second = say("was", m=item.was) if item.was else item.shape
            label = f"{item.number}  {item.name}" + (f"\n{second}" if second else "")
            lines.append(f"    {_name(item)} [label={_text(label)}, {_look(item.kind, item.state)}];")
        lines.append("  }")
    for link in scene.links:
        colour = f' [color="{STATES[link.state]}"{", style=dashed" if link.state == REMOVED else ""}]' if link.state else ""
        lines.append(f"  {_name(link.source)} -> {_name(link.target)}{colour};")
    return "\n".join([*lines, "}", ""])


def _name(item: Item | None) -> str:
    return _text(box_id(item))


def _look(kind: str, state: str) -> str:
    fill, edge = FILLS[kind]
    ink = ', fontcolor="#ffffff"' if kind == "output" else ""
    dashed = ', style="rounded,dashed"' if state == REMOVED else ""
    return f'fillcolor="{fill}", color="{STATES.get(state, edge)}"{ink}{dashed}{", penwidth=2" if state else ""}'


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
