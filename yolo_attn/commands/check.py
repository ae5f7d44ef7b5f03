"""`yolo-attn check my_attn.py:MyAttn`: does a module hold in training and deployment?"""

from __future__ import annotations

import argparse

from ..errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("modules", nargs="+", metavar="MODULE", help="FILE.py:Class, or the name of a registered module")
    add("--args", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options of the module, e.g. reduction=8")
    add("--channels", type=int, default=64, metavar="N", help="channels that arrive (default 64)")
    add("--only", nargs="+", action="extend", default=[], metavar="CHECK", help="make these checks only, e.g. save odd-sizes")
    add("--skip", nargs="+", action="extend", default=[], metavar="CHECK", help="leave these checks out")
    add("--device", default="cpu", metavar="NAME", help="where the checks run: cpu (default), cuda:0, ...")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="time for each check (default 60)")
    add("--strict", action="store_true", help="exit with 1 for warnings as well")
    add("--json", nargs="?", const="-", metavar="FILE", help="write the findings as JSON to FILE, or in place of the table")


def run(args: argparse.Namespace) -> int:
    """Check each module, print a table, and return 1 if one fails."""
    from ..inside.check import launch, table
    from ._options import pairs

    for name, least in (("channels", 1), ("timeout", 1)):
        if not getattr(args, name) >= least:
            raise UsageError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    asked = table.chosen(args.only, args.skip)
    options = pairs(args.args)
    report = table.Report(args.modules, quiet=args.json == "-")
    for name in args.modules:
        findings = launch.check(
            name, options, checks=asked, channels=args.channels, device=args.device, limit=args.timeout, plugins=tuple(args.plugin)
        )
        report.module(name, findings, channels=args.channels, device=args.device)
    report.end(args.json)
    return report.exit_code(strict=args.strict)
