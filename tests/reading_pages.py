"""Read pages as a browser would, and write a font, for tests of what is drawn and told."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Read(HTMLParser):
    """Tags in order, that every one is closed, and what it would ask a network or a disk for."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.asked: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.asked += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))]

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def font_with(characters: str, file: Path) -> Path:
    """Write a font with these characters, a square each: a machine that runs tests need not have one."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((800, 0))
    pen.lineTo((800, 800))
    pen.closePath()
    names = {ord(c): f"u{ord(c):04X}" for c in sorted(set(characters))}
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", *names.values()])
    made.setupCharacterMap(names)
    made.setupGlyf({n: pen.glyph() for n in [".notdef", *names.values()]})
    made.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Nobody Knows", "styleName": "Regular", "psName": "NobodyKnows"})
    made.setupOS2()
    made.setupPost()
    made.save(str(file))
    return file
