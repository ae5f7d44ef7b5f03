"""`yolo-attn COMMAND ...` and `python -m yolo_attn COMMAND ...`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from ._version import __version__
from .commands import COMMANDS, parser_of
from .errors import UsageError, YoloAttnError
from .files import REFUSED
from .hook.host_errors import DEBUG, told_by_row
from .log import printing
from .system.console import OutputClosed, drop_output, given_back, standard_output
from .system.shell import exit_code, ready

__all__ = ["COMMANDS", "main"]

# These pass the rest of the command line on unchanged.
PASS_THROUGH = ("yolo", "run", "train")
SCRIPTS = ("yolo", "run")  # what these raise is the script's own


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Environment, `sys.argv`, `sys.path` and log handlers are restored afterwards.

    Args:
        argv: The command and its options; those of the process when absent.

    Returns:
        The exit code: 0; 1 for an error that the user can fix; 2 for wrong options; 130 after Ctrl-C, 143 after SIGTERM.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with given_back(), printing(), standard_output():
            return _main(argv)
    except OutputClosed:  # `yolo-attn list | head`
        drop_output()
        return 0


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version", "version"):
        print(f"yolo_attn {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if "--debug" in rest and name not in SCRIPTS:
        rest = [a for a in rest if a != "--debug"]
        os.environ[DEBUG] = "1"
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        print(f"yolo-attn: no command is called '{name}'.{hint} 'yolo-attn --help' lists them.", file=sys.stderr)
        return 2
    # A checkpoint whose plug-in is missing must not make the host install a package of that name.
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        with ready(script=name in SCRIPTS), told_by_row(building=True) if name not in SCRIPTS else nullcontext():
            return _run(name, rest)
    except YoloAttnError as exc:
        if os.environ.get(DEBUG):
            raise
        print(f"yolo-attn {name}: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, UsageError) else 1
    except KeyboardInterrupt as exc:
        print(f"\nyolo-attn {name}: stopped", file=sys.stderr)
        return exit_code(exc)
    except OSError as exc:
        if exc.errno not in REFUSED or name in SCRIPTS:  # a script's own errors pass through
            raise
        print(f"yolo-attn {name}: {exc.filename or 'the disk'}: {exc.strerror}", file=sys.stderr)
        return 1


def _run(name: str, rest: list[str]) -> int:
    command = importlib.import_module(f".commands.{name}", __package__)
    if name in PASS_THROUGH:
        return int(command.run(rest) or 0)
    try:
        args = parser_of(name).parse_args(rest)
    except SystemExit as exc:  # --help has been printed
        return int(exc.code or 0)
    if args.plugin:
        from .registry.plugins import load_file

        for file in args.plugin:
            load_file(file)
    return int(command.run(args) or 0)


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    rows = "\n".join(f"  {n:<{width}}{h}" for n, h in COMMANDS.items())
    return f"yolo_attn {__version__}: attention for YOLO detectors\n\nyolo-attn COMMAND --help\n\n{rows}"


if __name__ == "__main__":
    raise SystemExit(main())
