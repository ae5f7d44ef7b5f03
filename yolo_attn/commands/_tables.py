"""The tables that commands print and that the READMEs contain, from the catalogue, the hosts and the shipped YAMLs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import read_source

__all__ = ["KINDS", "catalog", "configs", "grid", "hosts", "kinds", "modules", "patched"]

WORDS = {
    "en": {
        "module": "module", "aliases": "also", "paper": "paper", "attends": "attends to", "weights": "weights",
        "flops": "MFLOPs", "nodes": "ONNX nodes", "identity": "identity start", "oracle": "tested against", "use": "when",
        "config": "config", "where": "what", "host": "host", "patched": "patched", "why": "why", "tested": "tested",
    },
    "zh": {
        "module": "模块", "aliases": "别名", "paper": "论文", "attends": "作用于", "weights": "参数量",
        "flops": "MFLOPs", "nodes": "ONNX 节点", "identity": "恒等初始化", "oracle": "对照验证", "use": "适用场景",
        "config": "配置", "where": "说明", "host": "宿主", "patched": "被替换的函数", "why": "原因", "tested": "已测试的版本",
    },
}  # fmt: skip


# What a module attends to, in the order of the tables.
KINDS = {
    "en": {"channel": "channel", "spatial": "spatial", "both": "both", "block": "block", "fusion": "fusion"},
    "zh": {"channel": "通道", "spatial": "空间", "both": "通道与空间", "block": "块（block）", "fusion": "特征融合"},
}


def catalog() -> list[dict[str, Any]]:
    """Return the generated catalogue of the kit's modules; does not import torch."""
    rows: list[dict[str, Any]] = json.loads(read_source(Path(__file__).with_name("catalog.json")))
    return rows


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines)


def modules(rows: list[dict[str, Any]], language: str = "en") -> str:
    """Return the table of modules; weights and FLOPs at 256 channels, 20 x 20 pixels."""
    w = WORDS[language]
    head = [
        w[k]
        for k in ("module", "aliases", "paper", "attends", "weights", "flops", "nodes", "identity", "oracle", "use")
    ]
    body = []
    for r in rows:
        paper = (
            f"[{r['arxiv']}](https://arxiv.org/abs/{r['arxiv']})" if _is_arxiv(r["arxiv"]) else r["arxiv"] or r["paper"]
        )
        aliases = ", ".join(f"`{a}`" for a in r["aliases"])
        body.append(
            [f"`{r['name']}`", aliases, paper, KINDS[language][r["kind"]], f"{r['params']:,}", f"{r['mflops']:g}", str(r["nodes"]["count"]), r["identity"] or "-",
             r["oracle"], r["use"]]
        )  # fmt: skip
    return markdown(head, body)


def kinds(rows: list[dict[str, Any]], language: str = "en") -> str:
    """Return the short table: names of modules, grouped by what they attend to."""
    w = WORDS[language]
    body = [[word, ", ".join(f"`{r['name']}`" for r in rows if r["kind"] == k)] for k, word in KINDS[language].items()]
    return markdown([w["attends"], w["module"]], body)


def configs(language: str = "en", names: list[str] | None = None) -> str:
    """Return the table of shipped YAMLs, all or the named ones: name and first comment."""
    from ..model_yaml import find

    w = WORDS[language]
    names = find.list_configs() if names is None else names
    return markdown([w["config"], w["where"]], [[f"`{n}`", summary(find.configs_folder() / n)] for n in names])


def summary(path: Path) -> str:
    """Return the description in a YAML's first comment, up to the command that made it."""
    words: list[str] = []
    for line in read_source(path).splitlines():
        text = line.lstrip("# ").strip()
        goes_on = not words or (text[:1].islower() and ":" not in text)
        if not line.startswith("#") or not text or not goes_on:
            break
        words.append(text)
    return " ".join(words).rstrip(".")


def hosts(language: str = "en") -> str:
    """Return the table of hosts and their tested versions."""
    from ..patches import HOSTS

    w = WORDS[language]
    return markdown([w["host"], w["tested"]], [[h.name, h.supported()] for h in HOSTS])


def patched(language: str = "en") -> str:
    """Return the table of the functions that are patched in each host, and why; each function once.

    Hosts whose modules differ only by a prefix share their lines.
    """
    w, lines = WORDS[language], []
    for names, prefix, group, repairs in _patches():
        functions = ", ".join(f"`{prefix}{p.module}.{p.function}`" for p in group)
        why = "; ".join(dict.fromkeys(p.why for p in group))
        lines.append([names, functions, why + (" (launchers only)" if repairs else "")])
    return markdown([w[k] for k in ("host", "patched", "why")], lines)


def patched_count() -> int:
    """Return the number of functions in that table."""
    return sum(len(group) for _, _, group, _ in _patches())


def _patches() -> list[tuple[str, str, list[Any], bool]]:
    """Yield lines of that table: hosts' names (on their first line only), optional prefix, patches, whether repairs."""
    from ..patches import HOSTS

    sharing: dict[Any, list[Any]] = {}
    for host in HOSTS:
        key = tuple((p.module[len(host.prefix) :], p.function) for p in (*host.patches, *host.repairs))
        sharing.setdefault(key, []).append(host)
    found = []
    for hosts in sharing.values():
        names, first = ", ".join(h.name for h in hosts), min(hosts, key=lambda h: len(h.prefix))
        prefix = "".join(f"[{h.prefix}]" for h in hosts if h.prefix)
        for patches, repairs in ((first.patches, False), (first.repairs, True)):
            for group in first.grouped(patches):
                found.append((names, prefix, group, repairs))
                names = ""
    return found


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a table for a terminal: columns padded, numbers aligned right."""
    table = [head, *rows]
    widths = [max(len(str(line[k])) for line in table) for k in range(len(head))]
    right = [all(str(r[k]).replace(",", "").replace(".", "").isdigit() for r in rows) for k in range(len(head))]
    text = []
    for line in table:
        cells = [f"{c:>{n}}" if r else f"{c:<{n}}" for c, n, r in zip(map(str, line), widths, right)]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _is_arxiv(text: str) -> bool:
    head, _, tail = text.partition(".")
    return len(head) == 4 and head.isdigit() and tail.isdigit()
