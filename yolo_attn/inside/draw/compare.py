"""One model beside another: what was added, changed and removed, in one drawing."""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher

from .scene import ADDED, CHANGED, KEPT, REMOVED, Item, Link, Scene

__all__ = ["beside"]

_LONGEST = 30  # letters of what a row was


def beside(base: Scene, other: Scene) -> Scene:
    """Return the second model with what distinguishes it from the first.

    Rows are paired in their order, by module, width and part; a row that stands where another stood is changed. An arrow
    of the first model that now leads through added rows is not shown as removed.

    Args:
        base: The first model.
        other: The second.
    """
    pairs, items = _paired(base.items, other.items)
    now = dict(zip(other.items, items))
    back = {a: now[b] for a, b in pairs.items()}
    ghosts = {a: replace(a, state=REMOVED) for a in base.items if a not in back}
    here = {**back, **ghosts}
    order = _order(base.items, other.items, pairs, now, ghosts)
    links = [Link(None if li.source is None else now[li.source], now[li.target]) for li in other.links]
    before = [(None if li.source is None else here[li.source], here[li.target]) for li in base.links]
    left = list(before)
    for link in links:
        pair = (link.source, link.target)
        if pair in left:
            left.remove(pair)
        elif not _touches(link, ADDED):  # a row that was added has new arrows, which its own mark says
            link.state = ADDED
    removed = [Link(source, target) for source, target in before]
    direct = _through(removed, REMOVED)  # what led through a removed row and now does not
    for link in links:
        if (link.source, link.target) in direct:
            link.state = KEPT
    through = _through(links, ADDED)
    for source, target in left:
        if (source, target) not in through:
            links.append(Link(source, target, REMOVED))
    return Scene(other.name, other.imgsz, order, links, base.name, other.channels)


def _paired(base: list[Item], other: list[Item]) -> tuple[dict[Item, Item], list[Item]]:
    """Pair rows; return the pairs, and the second model's rows with their states. The outputs are each other's."""
    *base, last = base
    *rows, output = other
    matcher = SequenceMatcher(None, [_sign(i) for i in base], [_sign(i) for i in rows], autojunk=False)
    pairs: dict[Item, Item] = {last: output}
    states = dict.fromkeys(other, KEPT)
    was: dict[Item, str] = {}
    if last.module != output.module or last.args != output.args:
        states[output], was[output] = CHANGED, _was(last, output)
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            for a, b in zip(base[a0:a1], other[b0:b1]):
                pairs[a] = b
                if a.args != b.args:
                    states[b], was[b] = CHANGED, _was(a, b)
        elif tag == "insert":
            states.update(dict.fromkeys(other[b0:b1], ADDED))
        elif tag == "replace":
            for k in range(max(a1 - a0, b1 - b0)):
                if k < a1 - a0 and k < b1 - b0 and base[a0 + k].kind != "attention":
                    pairs[base[a0 + k]] = other[b0 + k]
                    states[other[b0 + k]] = CHANGED
                    was[other[b0 + k]] = _was(base[a0 + k], other[b0 + k])
                elif k < b1 - b0:
                    states[other[b0 + k]] = ADDED
    return pairs, [replace(i, state=states[i], was=was.get(i, "")) for i in other]


def _sign(item: Item) -> tuple[object, ...]:
    """What two rows have in common where they are the same."""
    return item.module, item.channels, item.repeats, item.part


def _was(a: Item, b: Item) -> str:
    """What a changed row was, as short as it can be said."""
    if a.module != b.module:
        return a.module.rpartition(".")[2]
    if (a.channels, a.repeats) != (b.channels, b.repeats):
        return f"{a.name} {a.shape.split(' · ')[0]}"
    text = f"{a.name} {a.args}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _order(base: list[Item], other: list[Item], pairs: dict[Item, Item], now: dict[Item, Item], ghosts: dict[Item, Item]) -> list[Item]:
    """The second model's rows, and each removed one behind the row that it stood behind."""
    found = [now[i] for i in other]
    last: Item | None = None
    for item in base:
        if item in ghosts:
            at = 0 if last is None else found.index(last) + 1
            found.insert(at, ghosts[item])
            last = ghosts[item]
        else:
            last = now[pairs[item]]
    return found


def _touches(link: Link, state: str) -> bool:
    return link.target.state == state or (link.source is not None and link.source.state == state)


def _through(links: list[Link], state: str) -> set[tuple[Item | None, Item]]:
    """Pairs of rows that are connected through rows of a state."""
    found: set[tuple[Item | None, Item]] = set()
    for link in links:
        todo, seen = [link.source], set()
        while todo:
            source = todo.pop()
            if source is None or source.state != state or source in seen:
                continue
            seen.add(source)
            for before in links:
                if before.target is source:
                    found.add((before.source, link.target))
                    todo.append(before.source)
    return found
