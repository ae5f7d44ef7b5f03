"""Write the tables of docs/deployment.md and docs/deployment.zh.md; called by deploy_matrix.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from yolo_attn.errors import FileError
from yolo_attn.export.deployment import PRECISIONS, matrix, on_cpu, versions_of
from yolo_attn.files import read_text, write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
SAID = {
    "deployment.md": {
        "fp32": "fp32",
        "fp16": "fp16",
        "int8": "int8, with the share of fp32's detections that it finds",
        "on_cpu": "left to the CPU",
        "format": "format",
        "precision": "precision",
        "reasons": "What is not proved, and why",
        "none": "Nothing: every file that was run here computes what PyTorch computes.",
        "versions": "Versions",
        "beyond": "operators that not every runtime has",
        "module": "module",
    },
    "deployment.zh.md": {
        "fp32": "fp32",
        "fp16": "fp16",
        "int8": "int8，附其找到的 fp32 检测框的比例",
        "on_cpu": "留给 CPU 的算子",
        "format": "格式",
        "precision": "精度",
        "reasons": "未通过验证的组合及原因",
        "none": "无：此处运行的每个文件都与 PyTorch 的计算结果一致。",
        "versions": "版本",
        "beyond": "并非所有运行时都支持的算子",
        "module": "模块",
    },
}


def write_docs(rows: Sequence[Mapping[str, str]]) -> None:
    """Replace what stands between the markers of both pages."""
    for name, words in SAID.items():
        path = DOCS / name
        text = read_text(path, FileError)
        before, begin, rest = text.partition("<!-- matrix -->\n")
        _, end, after = rest.partition("<!-- /matrix -->")
        new = before + begin + tables(rows, words) + end + after
        if new != text:
            write_text(path, new)


def tables(rows: Sequence[Mapping[str, str]], words: Mapping[str, str]) -> str:
    """Return the tables of all precisions, the reasons, and the versions."""
    parts = []
    for precision in PRECISIONS:
        head, body = matrix(rows, precision)
        if body:
            parts += [f"**{words[precision]}**", markdown([words["module"], *head[1:]], body)]
    bad = [r for r in rows if r["reason"]]
    parts.append(f"**{words['reasons']}**")
    lines = [f"- `{r['module']}`, {r['format']}, {r['precision']}: {r['result']}. {r['reason']}" for r in bad]
    parts.append("\n".join(lines) or words["none"])
    beyond = {r["module"]: r["beyond"] for r in rows if r["beyond"]}
    if beyond:
        parts.append(markdown([words["module"], words["beyond"]], [[n, o] for n, o in sorted(beyond.items())]))
    left = on_cpu(rows)
    if left:
        parts.append(markdown([words[k] for k in ("module", "format", "precision", "on_cpu")], left))
    versions: dict[str, set[str]] = {}
    for r in rows:
        versions.setdefault(r["format"], set()).update(f"{p} {v}" for p, v in versions_of(r).items())
    told = (f"{format} ({', '.join(sorted(its))})" for format, its in sorted(versions.items()) if its)
    parts.append(f"{words['versions']}: {', '.join(told)}.")
    return "\n\n".join(parts) + "\n"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, r)) + " |" for r in rows)])
