"""`yolo-attn adopt`: convert a fork's model YAML, or a folder of them, to a form that builds here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import FileError, UsageError, YoloAttnError
from ..files import write_text
from ..system.console import talk_aside


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("cfg", metavar="YAML", help="model YAML of a fork, or a folder of them")
    add("-o", "--output", metavar="FILE", help="output file, or output folder for a folder")
    add("--check", action="store_true", help="only report the changes")
    add("--fix", action="store_true", help="also shift the row numbers of a Detect that reads a Concat")
    add("--host", metavar="HOST", help="build with ultralytics, yolov5 or a YOLOv5 checkout (default: any that can)")
    add("--force", action="store_true", help="write files that do not build, and overwrite existing ones")
    add("--json", action="store_true", help="print JSON: of a folder, one entry for each file")


def run(args: argparse.Namespace) -> int:
    """Convert, report and write; the exit code is 1 if a name is unknown or no host can build the result."""
    source = Path(args.cfg).expanduser()
    if args.check and args.output:
        raise UsageError("--check writes nothing: omit --output")
    return _folder(source, args) if source.is_dir() else _file(args)


def _file(args: argparse.Namespace) -> int:
    from ..detectors.adopting import adopt

    out = _target(Path(args.output), args.force) if args.output else None
    with talk_aside(args.json):
        found = adopt(args.cfg, host=args.host, fix=args.fix)
    if args.json:
        if out is not None and (found.whole or args.force):
            _write(out, found.text, args.cfg)
        print(json.dumps(_as_json(found), indent=1, ensure_ascii=False, default=str))
        return 0 if found.whole else 1
    for change in found.changes:
        print(change)
    for note in found.notes:
        print(f"left as it is: {note}{'' if args.fix else '; --fix changes it'}")
    for name, rows in found.unknown.items():
        print(_unknown(name, rows, found.near.get(name, "")))
    if found.whole:
        print(f"{args.cfg}: builds with {found.host}, {found.parameters:,} parameters; {_changes(found)}")
    else:
        print(f"{args.cfg}: does not build: {found.problem}; {_changes(found)}")
    if out is not None and (found.whole or args.force):
        _write(out, found.text, args.cfg)
        print(f"{out}: written{'' if found.whole else ', though it does not build'}")
    elif out is not None:
        print(f"{out}: not written; use --force to write it anyway")
    elif found.changes and not args.check:
        print("nothing was written: give -o FILE")
    return 0 if found.whole else 1


def _as_json(found: Any) -> dict[str, Any]:
    return {k: getattr(found, k) for k in ("changes", "notes", "unknown", "whole", "host", "parameters", "problem")}


def _folder(source: Path, args: argparse.Namespace) -> int:
    from ..detectors.adopting import Adoption, adopt, tally
    from ._tables import grid

    files = sorted(p for p in source.rglob("*") if p.suffix in (".yaml", ".yml") and _has_rows(p))
    if not files:
        raise FileError(f"{source}: has no model YAML (with 'backbone' and 'head')")
    target = Path(args.output) if args.output else None
    if target is not None and target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; the output for a folder must be a folder")
    rows: list[list[str]] = []
    told: list[dict[str, Any]] = []
    all_found: list[Adoption] = []
    failed = False
    for file in files:
        name = str(file.relative_to(source))
        try:
            with talk_aside(args.json):
                found = adopt(file, host=args.host, fix=args.fix)
        except YoloAttnError as exc:
            told.append({"file": name, "whole": False, "problem": str(exc)})
            rows.append([name, "", "", str(exc).replace(f"{file}: ", "")])
            failed = True
            continue
        all_found.append(found)
        told.append({"file": name, **_as_json(found)})
        failed |= not found.whole
        state = (
            f"{found.host}, {found.parameters:,} parameters" if found.whole else found.problem.replace(f"{file}, ", "")
        )
        if target is not None and (found.whole or args.force):
            _write(_target(target / name, args.force, folder=True), found.text, str(file))
        rows.append([name, str(len(found.changes)), ", ".join(found.unknown), state])
    if args.json:
        print(json.dumps(told, indent=1, ensure_ascii=False, default=str))
        return 1 if failed else 0
    print(grid(["file", "changes", "unknown names", "builds with"], rows))
    near = {n: a.near[n] for a in all_found for n in a.near}
    for name, count in tally(all_found).most_common():
        print(_unknown(name, count, near.get(name, "")))
    whole = sum(a.whole for a in all_found)
    print(f"{len(files)} files, {whole} build" + (f"; written to {target}" if target is not None else ""))
    return 1 if failed else 0


def _has_rows(path: Path) -> bool:
    """Whether a file may be a model YAML, in any encoding, rather than one of data or hyperparameters."""
    try:
        data = path.read_bytes().replace(b"\0", b"")
    except OSError:  # a folder of that name, or an unreadable file
        return False
    return b"backbone" in data and b"head" in data


def _unknown(name: str, rows: list[int] | int, near: str) -> str:
    many = rows if isinstance(rows, int) else len(rows)
    places = "" if isinstance(rows, int) else f" ({'row' if many == 1 else 'rows'} {', '.join(map(str, rows))})"
    return f"unknown: {name}, {many} {'row' if many == 1 else 'rows'}{places}.{' ' + near if near else ''}"


def _changes(found: Any) -> str:
    n = len(found.changes)
    return "nothing changes" if not n else f"{n} change{'' if n == 1 else 's'}"


def _target(out: Path, force: bool, *, folder: bool = False) -> Path:
    """Check that a file may be written, and return it."""
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"the output must be a .yaml file, got {out}")
    if out.exists() and not force:
        raise FileError(f"{out} exists. Choose another name, or add --force to overwrite it.")
    if folder:
        out.parent.mkdir(parents=True, exist_ok=True)
    if not out.parent.is_dir():
        raise FileError(f"the folder {out.parent} does not exist")
    return out


def _write(out: Path, text: str, source: str) -> None:
    from .insert import keep_scale

    write_text(out, keep_scale(text, source, str(out)))
