"""Download published weights by name, through the ultralytics host."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, first_line

__all__ = ["fetch"]


def fetch(weights: str) -> Path:
    """Return a local file, or download published weights with the host.

    Args:
        weights: Path of a file, or a published name such as ``yolov5su``.

    Raises:
        CheckpointError: There is no such file, and it cannot be downloaded.
    """
    if Path(weights).is_file():
        return Path(weights)
    from ultralytics.utils.downloads import attempt_download_asset

    name = weights if weights.endswith(".pt") else f"{weights}.pt"
    advice = f"Without a network, give an existing file (looked in {Path.cwd()})."
    try:
        file = Path(attempt_download_asset(name))
    except Exception as exc:  # the network can raise anything
        raise CheckpointError(
            f"{name} was not found and cannot be downloaded. {advice} ultralytics: {first_line(exc)}"
        ) from exc
    if not file.is_file():
        raise CheckpointError(f"{name} was not found and cannot be downloaded. {advice}")
    return file
