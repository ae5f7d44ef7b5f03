"""`yolo-attn list`: the modules and YAMLs of the kit, from the generated catalogue, without importing torch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from ..errors import ConfigError, UnknownModuleError, UsageError, did_you_mean
from . import _tables

# A row that builds, by kind; 256 is a block's width before scaling.
_ROWS = {"block": "[-1, 1, {}, [256]]", "fusion": "[[-1, 6], 1, {}, []]"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "name",
        nargs="?",
        help="show one module, by name, alias or FILE.py:Class; with --configs, filter the YAMLs by name",
    )
    parser.add_argument("--configs", action="store_true", help="list the model YAMLs")
    parser.add_argument("--deploy", action="store_true", help="list what was seen of each module in each runtime")
    parser.add_argument("--kind", choices=[*_tables.KINDS["en"]], help="list only modules of this kind")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, as in the docs")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    if args.configs:
        if args.deploy:
            raise UsageError("--configs lists model YAMLs and --deploy modules: choose one of them")
        from ..model_yaml import find

        names = [n for n in find.list_configs() if (args.name or "").lower() in n]
        if not names:
            raise ConfigError(
                f"no model YAML of the kit has '{args.name}' in its name. --configs without a name lists them all."
            )
        if args.markdown:
            print(_tables.configs(names=names))
            return 0
        if args.json:
            return _json([{"config": n, "what": _tables.summary(find.configs_folder() / n)} for n in names])
        print(_tables.grid(["config", "what"], [[n, _tables.summary(find.configs_folder() / n)] for n in names]))
        return 0
    rows = _tables.catalog()
    if args.deploy:
        return _deploy(args, rows)
    if args.name:
        return _one(args.name, rows, args)
    rows = [r for r in rows if args.kind in (None, r["kind"])]
    if args.markdown:
        print(_tables.modules(rows))
        return 0
    if args.json:
        own = [dict(zip(("name", "kind", "arxiv", "paper"), (n, k, a, p))) for n, k, a, _, _, p in _own(args)]
        return _json([*rows, *own])
    head = ["module", "kind", "arXiv", "weights", "MFLOPs", "paper"]
    body = [[r["name"], r["kind"], r["arxiv"], f"{r['params']:,}", f"{r['mflops']:g}", r["paper"]] for r in rows]
    body += _own(args)
    print(_tables.grid(head, body))
    print("\nweights and MFLOPs at 256 channels, 20 x 20. 'yolo-attn list NAME' shows options and aliases.")
    return 0


def _json(value: Any) -> int:
    print(json.dumps(value, indent=1, ensure_ascii=False))
    return 0


def _one(name: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> int:
    found = next((r for r in rows if name in (r["name"], *r["aliases"])), None)
    if found is None and _may_be_own(args, name):
        from ..registry import plugins

        return _own_one(plugins.resolve(name), args)
    if found is None:
        names = [n for r in rows for n in (r["name"], *r["aliases"])]
        hint = did_you_mean(name, names) or " 'yolo-attn list' shows them all."
        raise UnknownModuleError(f"no attention module is called '{name}'.{hint}")
    if args.json:
        return _json(found)
    lines = [
        ("name", found["name"]), ("also", ", ".join(found["aliases"]) or "-"), ("paper", found["paper"]),
        ("arXiv", found["arxiv"]), ("kind", found["kind"]), ("use", found["use"]),
        ("weights", f"{found['params']:,} at 256 channels"), ("MFLOPs", f"{found['mflops']:g} at 256 x 20 x 20"),
        ("identity", found["identity"] or "-"), ("tested", f"against {found['oracle']}"),
        ("options", ", ".join(found["options"]) or "-"), ("file", f"yolo_attn/modules/{found['file']}"),
        ("row", _ROWS.get(found["kind"], "[-1, 1, {}, []]").format(found["name"])),
    ]  # fmt: skip
    for key, value in lines:
        print(f"{key:<10}{value}")
    return 0


def _deploy(args: argparse.Namespace, catalog: list[dict[str, Any]]) -> int:
    """Print the table of deployment: of one module with the reasons, or of all."""
    from ..export.deployment import PRECISIONS, RESULTS, matrix, on_cpu, read

    if args.markdown:
        raise UsageError("--deploy has no --markdown; docs/deployment.md is that table")
    rows = list(read())
    if args.name:
        name = next((r["name"] for r in catalog if args.name in (r["name"], *r["aliases"])), "")
        rows = [r for r in rows if r["module"] == name]
        if not rows:
            raise UnknownModuleError(_not_in_table(args, name, catalog))
    if args.kind:
        kinds = {r["name"]: r["kind"] for r in catalog}
        rows = [r for r in rows if kinds.get(r["module"]) == args.kind]
        if not rows:
            which = f"'{args.name}' is not of the kind" if args.name else "the table of deployment has nothing of the kind"
            raise UsageError(f"{which} '{args.kind}'")
    if args.json:
        return _json(rows)
    if args.name:
        filled = ["on_cpu"] if on_cpu(rows) else []
        head = ["format", "version", "precision", "result", "difference", *filled, "reason"]
        print(_tables.grid(head, [[r[k] for k in head] for r in rows]))
        return 0
    for precision in PRECISIONS:
        head, body = matrix(rows, precision)
        if body:
            print(f"{precision}\n{_tables.grid(head, body)}\n")
    left = on_cpu(rows)
    if left:
        print(f"{_tables.grid(['module', 'format', 'precision', 'left to the CPU by the compiler'], left)}\n")
    for word, meaning in RESULTS.items():
        print(f"{word:<10}{meaning}")
    print("\nA detector of two convolutions, the module and two heads; 'yolo-attn list NAME --deploy' shows reasons and versions.")
    return 0


def _not_in_table(args: argparse.Namespace, name: str, catalog: list[dict[str, Any]]) -> str:
    """Return why the table of deployment has no line of a module: it was not tried, or there is no such module."""
    if name:
        return f"the table of deployment has nothing of '{name}', which was tried in no runtime. The export proves each file: yolo-attn export"
    if _may_be_own(args, args.name):
        from ..registry import plugins, registry

        entry = registry.find(plugins.resolve(args.name))
        if entry is not None:
            return (
                f"the table of deployment has the modules of the kit alone; '{entry.name}' is {entry.owner}. The export proves "
                f"each file: yolo-attn export"
            )
    names = [n for r in catalog for n in (r["name"], *r["aliases"])]
    return f"no attention module is called '{args.name}'.{did_you_mean(args.name, names) or ' yolo-attn list shows them all.'}"


def _own_one(name: str, args: argparse.Namespace) -> int:
    """Print a plug-in's module, from its registration and constructor."""
    from ..registry import registry

    entry = registry.get_entry(name)
    kind = "block" if entry.binding.is_block else entry.kind
    lines = [
        ("name", entry.name), ("also", ", ".join(entry.aliases) or "-"), ("paper", entry.paper or "-"),
        ("arXiv", entry.arxiv or "-"), ("kind", entry.kind or "-"), ("use", entry.use or "-"),
        ("options", entry.binding.options()), ("class", entry.owner),
        ("file", getattr(sys.modules.get(entry.cls.__module__), "__file__", None) or "-"),
        ("row", _ROWS.get(kind, "[-1, 1, {}, []]").format(entry.name)),
    ]  # fmt: skip
    if args.json:
        return _json(dict(lines))
    for key, value in lines:
        print(f"{key:<10}{value}")
    return 0


def _may_be_own(args: argparse.Namespace, name: str = "") -> bool:
    """Whether there may be plug-ins; only then is torch imported."""
    from ..registry import plugins

    return bool(".py:" in name or args.plugin or os.environ.get(plugins.VARIABLE) or plugins.entry_points())


def _own(args: argparse.Namespace) -> list[list[str]]:
    """Return lines for plug-ins' modules: from the command line, the environment and installed packages."""
    if not _may_be_own(args):
        return []
    from ..registry import registry

    entries = [registry.get_entry(n) for n in registry.list_modules(kind=args.kind)]
    own = [e for e in entries if not e.cls.__module__.startswith(f"{__package__.partition('.')[0]}.modules.")]
    return [[e.name, e.kind or "-", e.arxiv or "-", "-", "-", e.paper or e.owner] for e in own]
