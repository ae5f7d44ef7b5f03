"""`yolo-attn yolo ...`: run the ultralytics command line in this process, with the parse hook installed."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import HostError, UsageError
from ..log import announce
from .run import OPTIONS, leading_options

USAGE = (
    "usage: yolo-attn yolo [--plugin FILE ...] [--start identity] [--freeze base[:K]] [--lr-new F] "
    "arguments of ultralytics' yolo command ..."
)


def run(argv: list[str]) -> int:
    """Pass the arguments to the host's entry point."""
    from ..hook.install import install, repair

    plugins, argv = leading_options(argv, USAGE)
    if argv in (["-h"], ["--help"], ["help"]):
        print(f"{USAGE}\n\n{OPTIONS}\n\nultralytics' own help:", flush=True)
        argv = ["help"]
    if plugins:
        from ..registry.plugins import load_file

        for file in plugins:
            load_file(file)
    repair()
    sys.argv[:] = ["yolo", *argv]  # in place, before the import: the host keeps a reference to this list
    try:
        from ultralytics import cfg, utils
    except ImportError as exc:
        raise HostError(f"the ultralytics package cannot be imported: {exc}. 'pip install ultralytics'") from exc
    install(strict=True)
    with _given(sys.argv, cfg, utils):
        cfg.entrypoint()
    if "export" in argv or "mode=export" in argv:
        announce("the host's export is not compared with PyTorch. What writes the file and proves it: %s", _proved_by(argv))
    return 0


def _proved_by(argv: list[str]) -> str:
    """Return the kit's own command for an export of the host; its help where the kit has no such format."""
    from ..export.formats.table import named

    given = dict(word.split("=", 1) for word in argv if "=" in word)
    try:
        name = named(given.get("format", "torchscript"))
    except UsageError:
        return "yolo-attn export --help"
    return f"yolo-attn export {shlex.quote(given.get('model', 'best.pt'))} --format {name}"


@contextlib.contextmanager
def _given(argv: list[str], *modules: Any) -> Iterator[None]:
    """Also set the lists that the host's modules have kept from an earlier import, as in a notebook."""
    kept = [module.ARGV for module in modules if getattr(module, "ARGV", argv) is not argv]
    before = [list(words) for words in kept]
    for words in kept:
        words[:] = argv
    try:
        yield
    finally:
        for words, old in zip(kept, before):
            words[:] = old
