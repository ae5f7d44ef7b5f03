"""Ultralytics removes apostrophes from the paths of checkpoints; keep them for files that exist."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

__all__ = ["keep_apostrophes"]


def keep_apostrophes() -> None:
    """Let the host open a checkpoint in a folder such as `bob's`; names of files that do not exist are left to it."""
    from ultralytics.utils import downloads

    original = downloads.attempt_download_asset
    if hasattr(original, "_yolo_attn"):
        return

    @functools.wraps(original)
    def attempt_download_asset(file: Any, *args: Any, **kwargs: Any) -> Any:
        there = "'" in str(file) and os.path.isfile(str(file))
        return str(file) if there else original(file, *args, **kwargs)

    attempt_download_asset._yolo_attn = True  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):  # some have imported it by name
        if name.startswith("ultralytics.") and getattr(module, "attempt_download_asset", None) is original:
            module.attempt_download_asset = attempt_download_asset  # type: ignore[attr-defined]
