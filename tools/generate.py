"""Generate the catalogue that `yolo-attn list` reads, and the tables of READMEs and docs in both languages.

python tools/generate.py           # write
python tools/generate.py --check   # exit with 1 and name stale files
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

CATALOG = ROOT / "yolo_attn" / "commands" / "catalog.json"
CHANNELS, SIDE = 256, 20


def catalog() -> list[dict[str, Any]]:
    """Return the entries of the registry, with the cost of each module at 256 x 20 x 20."""
    import torch

    from yolo_attn.export.one_module import export_module, make_module
    from yolo_attn.hook.flops import count
    from yolo_attn.registry import registry

    rows = []
    for name in registry.list_modules():
        entry = registry.get_entry(name)
        if not entry.lists or not entry.cls.__module__.startswith("yolo_attn.modules."):
            continue
        torch.manual_seed(0)
        module, inputs = make_module(name, CHANNELS)
        x = [torch.randn(1, CHANNELS, SIDE, SIDE) for _ in range(inputs)]
        operations = count(module, x if inputs > 1 else x[0])
        graph = export_module(module, x, dynamic=True).graph
        rows.append(
            {
                "name": name,
                "aliases": list(entry.aliases),
                "paper": entry.paper,
                "arxiv": entry.arxiv,
                "kind": entry.kind,
                "oracle": entry.oracle,
                "use": entry.use,
                "identity": getattr(entry.cls, "identity", ""),
                "file": entry.cls.__module__.rpartition(".")[2] + ".py",
                "options": _options(entry),
                "params": sum(p.numel() for p in module.parameters()),
                "mflops": round(operations / 1e6, 3),
                "nodes": {"count": len(graph.node), "torch": torch_version()},
            }
        )
    return rows


def torch_version() -> str:
    """Return the part of torch's version on which exported graphs depend."""
    import torch

    return ".".join(torch.__version__.split(".")[:2])


def keep_counts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the recorded node counts under another version of torch, whose exporter differs."""
    if CATALOG.is_file():
        old = {r["name"]: r.get("nodes") for r in json.loads(CATALOG.read_text(encoding="utf-8"))}
        for row in rows:
            recorded = old.get(row["name"])
            if recorded and recorded["torch"] != torch_version():
                row["nodes"] = recorded
    return rows


def _options(entry: Any) -> list[str]:
    skip = len(entry.binding.takes)
    parameters = list(entry.binding.signature.parameters.values())[skip:]
    return [str(p.replace(annotation=inspect.Parameter.empty)).replace(" ", "") for p in parameters]


def tables(language: str) -> dict[str, str]:
    """Return the generated tables, by the names of their markers."""
    import messages

    from yolo_attn.commands import _tables
    from yolo_attn.model_yaml import find

    rows, yamls = json.loads(CATALOG.read_text(encoding="utf-8")), find.list_configs()
    functions = _tables.patched_count()
    said = {
        "en": ("{} modules.", "{} YAMLs.", "{} functions."),
        "zh": ("共 {} 个模块，说明为英文。", "共 {} 个 YAML，说明为英文。", "共 {} 个函数，说明为英文。"),
    }[language]
    return {
        "kinds": _tables.kinds(rows, language),
        "modules": said[0].format(len(rows)) + "\n\n" + _tables.modules(rows, language),
        "configs": said[1].format(len(yamls)) + "\n\n" + _tables.configs(language),
        "hosts": _tables.hosts(language),
        "patched": said[2].format(functions) + "\n\n" + _tables.patched(language),
        "messages": messages.table(language),
        "api": api(language),
        "security": security(language),
    }


def api(language: str) -> str:
    """Return the public names with the first sentences of their docstrings."""
    import yolo_attn

    rows = []
    for name in sorted(yolo_attn._EXPORTS, key=str.lower):
        said = (inspect.getdoc(getattr(yolo_attn, name)) or "").split("\n\n")[0]
        said = re.sub(r":\w+:`~?([^`]*)`", r"``\1``", " ".join(said.split())).replace("``", "`").replace("|", "\\|").rstrip(":")
        rows.append(f"| `{name}` | {said} |")
    head = {"en": "| name | what |", "zh": "| 名称 | 说明 |"}[language]
    return "\n".join([head, "| --- | --- |", *rows])


def security(language: str) -> str:
    """Return SECURITY.md; in the Chinese page, which begins with a summary, as a section."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8").strip()
    return text if language == "en" else re.sub(r"^#", "##", text.partition("\n")[2].strip(), flags=re.MULTILINE)


def fill(page: str, parts: dict[str, str]) -> str:
    """Put each table between its markers, `<!-- modules -->` and `<!-- /modules -->`."""
    for name, table in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        page = pattern.sub(lambda m, t=table: m.group(1) + "\n" + t + "\n\n" + m.group(2), page)
    return page


def pages() -> dict[Path, str]:
    """Return the READMEs and the pages of the docs with their languages."""
    docs = {p: "zh" if p.name.endswith(".zh.md") else "en" for p in sorted((ROOT / "docs").glob("*.md"))}
    return {ROOT / "README.md": "en", ROOT / "README.zh-CN.md": "zh", **docs}


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    rows = keep_counts(catalog()) if check else catalog()
    wanted = {CATALOG: json.dumps(rows, indent=1, ensure_ascii=False) + "\n"}
    if not check:
        CATALOG.write_text(wanted[CATALOG], encoding="utf-8")
    made = {language: tables(language) for language in ("en", "zh")}
    for file, language in pages().items():
        if file.is_file():
            wanted[file] = fill(file.read_text(encoding="utf-8"), made[language])
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"stale: {path.relative_to(ROOT)}; run python tools/generate.py")
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
