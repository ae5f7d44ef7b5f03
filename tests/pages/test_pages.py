"""Pages stand alone and escape what they are told; figures are the same each time; a font is found by its characters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from reading_pages import Read, font_with

from yolo_attn.errors import FileError, UsageError
from yolo_attn.pages import figures, fonts, texts
from yolo_attn.pages.html import Cell, Page

HAN = "基线参数延迟"


def lines(number: int = 2) -> Any:
    figure = figures.new(4, 3)
    axes = figure.subplots()
    for k in range(number):
        axes.plot([0, 1, 2], [k, k + 1, k], label=f"series {k}", **figures.look(k))
    axes.legend()
    return figure


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a machine have these font files and no others."""
    from matplotlib import font_manager

    listed = list(font_manager.fontManager.ttflist)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [e for e in listed if e.name.startswith("DejaVu")])

    def set_to(*files: Path) -> None:
        monkeypatch.setattr(fonts, "_files", lambda: [str(f) for f in files])
        fonts._find.cache_clear()

    yield set_to
    fonts._find.cache_clear()


def test_a_page_stands_alone_and_escapes() -> None:
    page = Page("A <study> & more")
    page.heading("Verdict")
    page.paragraph('config "<img src=http://x>"')
    page.points(["<script>alert(1)</script>"])
    page.table(["config", "AP"], [["<b>a</b>", Cell("0.500", 0.5, bold=True, title='"x"')], ["b", "-"]], "<caption>")
    page.pictures([(b"\x89PNG....", "<heat>")])
    with figures.style():
        page.figure(figures.inline(lines(), "one"), "<two> lines")
        page.figure(figures.inline(lines(), "two"), "two lines")
    read = Read(page.text())
    assert read.asked == [] and read.tags.count("script") == 1 and read.tags.count("svg") == 2
    assert read.tags.count("img") == 1 and "http-equiv" in page.text()
    assert len(read.ids) == len(set(read.ids)) > 10, "two figures of a page share ids"
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page.text()))
    assert {a or b for a, b in used} <= set(read.ids)


def test_numbers_sort_as_numbers_and_gaps_last() -> None:
    page = Page("t")
    page.table(["config", "AP", "count"], [["a", Cell("0.5 ± 0.1", 0.5), "1,000"], ["b", Cell("-"), "20"]])
    text = page.text()
    assert '<td class=number data-v="0.5">0.5 ± 0.1</td>' in text and 'data-v="1000">1,000' in text
    assert '<td class=number data-v="">-</td>' in text and "<td>a</td>" in text


def test_the_policy_allows_this_script_alone() -> None:
    import base64
    import hashlib

    text = Page("t").text()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r"script-src 'sha256-([^']+)'", text)
    assert script and policy
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() == policy[1]


def test_figures_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with figures.style():
            made = figures.save(lines(3), tmp_path / name)
        assert [p.suffix for p in made] == [".svg", ".pdf", ".png"]
    for kind in ("svg", "pdf", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes(), kind
    svg = ElementTree.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    said = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"series 0", "series 1", "series 2"} <= set(said), "text does not stay text"
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_ink_takes_the_pages_colour() -> None:
    with figures.style():
        text = figures.inline(lines(), "k")
    assert figures.INK not in text and "currentColor" in text and figures.COLOURS[1] in text
    assert text.startswith("<svg") and "viewBox" in text and not re.search(r'<svg [^>]*(?<![-\w])height="', text)


def test_names_are_no_formulas() -> None:
    """A dollar sign begins one in matplotlib, and one that is wrong is a traceback."""
    with figures.style():
        figure = figures.new()
        figure.subplots().set_title("5 $ and \\frac$ <b>")
        assert "5 $ and \\frac$ &lt;b&gt;" in figures.inline(figure, "k")


def test_series_are_told_apart_without_colour() -> None:
    looks = [(str(v["linestyle"]), v["marker"]) for v in map(figures.look, range(7))]
    assert len(set(looks)) == 7
    assert len({str(sorted(figures.look(k).items(), key=str)) for k in range(14)}) == 14


def test_a_font_is_found_by_its_characters(tmp_path: Path, only: Any) -> None:
    damaged = tmp_path / "NotoSansCJKsc-Regular.otf"
    damaged.write_bytes(b"not a font")
    half = font_with(HAN[:3], tmp_path / "half.ttf")
    good = font_with(HAN + "abc", tmp_path / "plain.ttf")
    only(damaged, half, good)
    font = fonts.require(HAN)
    assert (font.family, font.file, font.embeds) == ("Nobody Knows", str(good), True)
    assert fonts.require("mAP50").family == fonts.DEFAULT
    with figures.style(HAN):
        figure = figures.new()
        figure.subplots().set_title(HAN)
        text = figures.inline(figure, "k")
        figures.save(figure, tmp_path / "f", ["pdf"])
    assert HAN in text and "Nobody Knows" in text and (tmp_path / "f.pdf").stat().st_size > 1000


def test_without_such_a_font_it_says_how_to_get_one(
    tmp_path: Path, only: Any, caplog: pytest.LogCaptureFixture
) -> None:
    only(font_with("abc", tmp_path / "a.ttf"))
    with pytest.raises(FileError, match=r"no font .* has the characters .*apt install fonts-noto-cjk.*mplfonts"), figures.style(HAN):
        pass
    with caplog.at_level("INFO", "yolo_attn"), figures.style("mAP", names=HAN):
        pass
    assert "all characters of the names" in caplog.text


def test_texts() -> None:
    table = {"en": {"runs": "{n} runs"}, "zh": {"runs": "{n} 次训练"}}
    assert texts.Texts(table, "zh")("runs", n=3) == "3 次训练" and "训" in texts.Texts(table, "zh").characters
    with pytest.raises(UsageError, match="en and zh"):
        texts.Texts(table, "fr")
