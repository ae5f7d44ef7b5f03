"""The kit's logger: visible without configuration, silent in all but the first process of a distributed run."""

from __future__ import annotations

import logging
import os
import sys

__all__ = ["LOGGER", "announce"]

LOGGER = logging.getLogger("yolo_attn")


def announce(message: str, *args: object) -> None:
    """Log one line for the user, also where nobody configured logging."""
    if int(os.environ.get("RANK", "-1") or -1) > 0:
        return
    if not LOGGER.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("yolo_attn: %(message)s"))
        LOGGER.addHandler(handler)
    if LOGGER.getEffectiveLevel() > logging.INFO and LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    LOGGER.info(message, *args)
