"""Collect the messages of the kit's errors from its source, for docs/messages.md.

A message names what was asked for, what was found, and the remedy; here they are listed by the room that prints them,
with the fields of each as ``<file>``, by the word that the source has for it, or ``...`` where it has none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["table"]

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "registry": ("Modules and plug-ins", "模块与插件"),
    "modules": ("Attention modules", "注意力模块"),
    "model_yaml": ("Model YAMLs and placement", "模型 YAML 与插入位置"),
    "hook": ("Building a model", "构建模型"),
    "weights": ("Weights and checkpoints", "权重与检查点"),
    "detectors": ("Opening, attaching, bundles", "打开检测器、attach 与 bundle"),
    "training": ("Training", "训练"),
    "study": ("Comparing, reports, search", "比较、报告与搜索"),
    "evaluation": ("Evaluation", "评估"),
    "inside": ("Looking inside", "内部观察"),
    "export": ("Export", "导出"),
    "runtime": ("Detection from a file", "由文件检测"),
    "pages": ("Pages and figures", "网页与图"),
    "system": ("System", "系统"),
    "patches": ("Hosts", "宿主"),
    "commands": ("Command line", "命令行"),
    "": ("General", "通用"),
}
WRAPPERS = ("Path", "len", "list", "quote", "repr", "shown", "sorted", "str", "type")


def error_classes() -> dict[str, int]:
    """Return the names of the kit's errors with the exit codes of the command line."""
    from yolo_attn import errors

    found = {}
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, errors.YoloAttnError):
            found[name] = 2 if issubclass(cls, errors.UsageError) else 1
    return found


def messages() -> dict[str, list[tuple[str, int, str]]]:
    """Return (class, exit code, message) of every raised error by room, in the order of the source."""
    classes = error_classes()
    rooms: dict[str, list[tuple[str, int, str]]] = {room: [] for room in ROOMS}
    for folder in (ROOT / "yolo_attn", ROOT / "patches"):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            room = parts[0] if parts[0] == "patches" else parts[1] if len(parts) > 2 else ""
            for name, message in _raised(ast.parse(path.read_text(encoding="utf-8")), set(classes)):
                entry = (name, classes[name], message)
                if entry not in rooms[room]:
                    rooms[room].append(entry)
    return rooms


def _raised(tree: ast.Module, classes: set[str]) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes and node.args:
            message = re.sub(r"\s+", " ", _text(node.args[0])).strip()
            message = re.sub(r"(\.\.\.\s?){2,}", "... ", message).strip()
            if len(re.findall(r"[A-Za-z]{3,}", re.sub(r"<\w+>", "", message))) >= 3:  # what is all fields is another error's text
                yield node.func.id, message


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body)
    word = _word(node.value if isinstance(node, ast.FormattedValue) else node)
    return f"<{word.strip('_')}>" if len(word) > 3 and word != "self" and not word[0].isupper() else "..."


def _word(node: ast.expr) -> str:
    """Return the word of the source for a value: of ``shown(file)``, ``row.file`` and ``files[0]`` the last name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        word = _word(node.value) if node.attr in ("name", "args", "__name__") else node.attr
        return {"__qualname__": "class", "st_size": "size"}.get(word, word)
    if isinstance(node, ast.Subscript):
        return _word(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "join" or ast.unparse(node.func.value) in ("math", "shlex"):
            return _word(node.args[0]) if node.args else ""
        return _word(node.func.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WRAPPERS:
        return _word(node.args[0]) if node.args else ""
    return ""


def table(language: str) -> str:
    """Return the sections of the page, in one language; the messages are English, as they are printed."""
    k = 0 if language == "en" else 1
    head = ("| message | exit code |", "| 报错信息 | 退出码 |")[k]
    sections = []
    for room, found in messages().items():
        if found:
            rows = "\n".join(f"| {_cell(message)} | {code} |" for _, code, message in found)
            sections.append(f"## {ROOMS[room][k]}\n\n{head}\n| --- | --- |\n{rows}")
    return "\n\n".join(sections)


def _cell(message: str) -> str:
    text = message.replace("`", "'").replace("|", "/")
    return f"`{text}`"
