"""Hooks of mkdocs: docstrings without Sphinx's roles; each language of the site searches its own pages.

The plug-in for languages writes one index of all of them, without what it takes for doubles (the Chinese API reference);
the plug-in for reading from disk has written the script of the last language by then. Here each language gets an index
and a script of its own, in its own folder, which serve from a server and from disk.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

__all__ = ["on_page_content", "on_post_build"]

HOME = "en"


def on_page_content(html: str, **context: Any) -> str:
    """Drop the roles of docstrings, which editors read: ``:func:`insert``` is shown as ``insert``."""
    return re.sub(r":(?:attr|class|data|exc|func|meth|mod):(<code>)~?", r"\1", html).replace("::</p>", ":</p>")


@event_priority(-200)  # after the plug-ins, which write the whole index
def on_post_build(config: Any) -> None:
    """Divide the index of the site by language, and let the pages of each language ask for their own."""
    site = Path(config.site_dir)
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    folders = [str(language.locale) for language in config.plugins["i18n"].config.languages if language.locale != HOME]
    docs: dict[str, list[dict[str, Any]]] = {locale: [] for locale in (HOME, *folders)}
    for entry in index["docs"]:
        locale, slash, rest = entry["location"].partition("/")
        if slash and locale in folders:
            docs[locale].append({**entry, "location": rest})
        else:
            docs[HOME].append(entry)
    for locale, own in docs.items():
        folder = site / ("" if locale == HOME else locale)
        if folder.is_dir():
            _write(folder / "search", {**index, "config": {**index["config"], "lang": [locale]}, "docs": own})
    for locale in folders:
        shutil.copyfile(site / "sitemap.xml", site / locale / "sitemap.xml")  # asked for by the switch of languages
        for page in sorted((site / locale).rglob("*.html")):
            text = page.read_text(encoding="utf-8")
            up = "/".join([".."] * (len(page.relative_to(site).parts) - 1))
            page.write_text(text.replace(f'"base": "{up}"', f'"base": "{up[3:] or "."}"', 1), encoding="utf-8")


def _write(folder: Path, index: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (folder / "search_index.json").write_text(text, encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {text}", encoding="utf-8")
