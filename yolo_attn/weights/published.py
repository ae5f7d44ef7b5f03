"""Weights that are published under a name, which the ultralytics host fetches."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, first_line

__all__ = ["fetch"]


def fetch(weights: str) -> Path:
    """Return a local file, or fetch a published name with the host.

    Raises:
        CheckpointError: Neither here nor to be had.
    """
    if Path(weights).is_file():
        return Path(weights)
    from ultralytics.utils.downloads import attempt_download_asset

    name = weights if weights.endswith(".pt") else f"{weights}.pt"
    advice = f"Without a network, name a file that is here (looked in {Path.cwd()})."
    try:
        file = Path(attempt_download_asset(name))
    except Exception as exc:  # whatever the network did
        raise CheckpointError(
            f"{name} is not here and cannot be fetched. {advice} ultralytics: {first_line(exc)}"
        ) from exc
    if not file.is_file():
        raise CheckpointError(f"{name} is not here and cannot be fetched. {advice}")
    return file
