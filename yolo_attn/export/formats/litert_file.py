"""A ``.tflite`` file with the entry behind it that tells its classes; by that it can be read as a zip too."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["add_about", "read_about", "write_like"]

ENTRY = "metadata.json"  # as the host calls it


def read_about(path: Path) -> dict[str, Any]:
    """Return what a file tells of itself."""
    with zipfile.ZipFile(path) as file:
        about: dict[str, Any] = json.loads(file.read(ENTRY))
    return about


def add_about(path: Path, about: dict[str, Any]) -> None:
    """Add to a network that has none yet what it tells of itself."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(ENTRY, json.dumps(about))


def write_like(before: Path, target: Path, network: bytes, precision: str) -> None:
    """Write a network that was made from another file's, in another precision; `target` may be that file."""
    about = {**read_about(before), "precision": precision}
    target.write_bytes(network)
    add_about(target, about)
