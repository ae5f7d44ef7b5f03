"""A font of this machine that has given characters: found by what it holds, whatever it is called.

matplotlib draws a box for a character that its font lacks, and its own font has no Chinese.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import FileError

__all__ = ["HOW", "Font", "find", "require"]

DEFAULT = "DejaVu Sans"  # comes with matplotlib
HOW = (
    "Install one ('apt install fonts-noto-cjk', 'dnf install google-noto-sans-cjk-fonts', or 'pip install mplfonts', which "
    "needs no administrator), or put a font file with Chinese characters, such as NotoSansCJKsc-Regular.otf, into "
    "~/.local/share/fonts"
)
# Fonts that look well are asked first; that a font is used, its characters decide alone.
FIRST = re.compile(r"(noto|source).?(sans|han).*(sc|cn|cjk)|msyh|pingfang|wqy|hiragino|stheiti|simhei|droid.*fallback|lxgw", re.I)
LAST = re.compile(r"serif|mono|bold|black|light|thin|medium|italic|oblique|ming|song", re.I)


class Font:
    """A font as matplotlib takes it.

    Args:
        family: Its name.
        file: Where it is; empty for matplotlib's own.
    """

    def __init__(self, family: str, file: str = "") -> None:
        self.family, self.file = family, file

    @property
    def embeds(self) -> bool:
        """Whether a PDF can hold it as TrueType; outlines of the other kind are drawn character by character."""
        if not self.file:
            return True
        with open(self.file, "rb") as stream:
            return stream.read(4) in (b"\0\1\0\0", b"true")


def require(characters: str) -> Font:
    """Return a font that has all of these characters.

    Raises:
        FileError: This machine has none; says how to get one.
    """
    font = find(characters)
    if font is None:
        missing = "".join(sorted(set(characters) - _of(_default())))[:12]
        raise FileError(f"no font of this machine has the characters {missing}... of the figures. {HOW}")
    return font


def find(characters: str) -> Font | None:
    """Return a font that has all of these characters, matplotlib's own where it does; None where there is none."""
    return _find(frozenset(c for c in characters if not c.isspace()))


@functools.lru_cache(maxsize=16)
def _find(wanted: frozenset[str]) -> Font | None:
    if wanted <= _of(_default()):
        return Font(DEFAULT)
    from matplotlib import font_manager

    for file in _files():
        if wanted <= _of(file):
            font_manager.fontManager.addfont(file)  # what it remembers of fonts may be older than the font
            names = [e.name for e in font_manager.fontManager.ttflist if e.fname == file]
            simplified = [n for n in names if n.endswith((" SC", " CN"))]
            return Font((simplified or names)[0], file)
    return None


def _default() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def _files() -> list[str]:
    """Every font file, those that look well first."""
    from matplotlib import font_manager

    known = [e.fname for e in font_manager.fontManager.ttflist]
    files = dict.fromkeys([*known, *font_manager.findSystemFonts(), *_bundled()])
    kept = [f for f in files if f.lower().endswith((".ttf", ".otf", ".ttc")) and Path(f).is_file()]
    return sorted(kept, key=lambda f: (not FIRST.search(Path(f).name), bool(LAST.search(Path(f).name)), f))


def _bundled() -> Iterable[str]:
    """Fonts that the package mplfonts brings, which is not imported for it."""
    from importlib.util import find_spec

    spec = find_spec("mplfonts")
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield from map(str, sorted(Path(place, "fonts").glob("*.?t?")))


@functools.cache  # a machine has some hundred fonts
def _of(file: str) -> frozenset[str]:
    """The characters of a font file; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(_characters(FT2Font(file).get_charmap()))
    except (RuntimeError, OSError, ValueError):  # a damaged file, of which some machine has one
        return frozenset()


def _characters(codes: Iterable[int]) -> Iterator[str]:
    return (chr(c) for c in codes if c < 0x110000)
