"""`yolo-attn train` and `train_detect.py`."""

from __future__ import annotations

from .. import options, train


def run(argv: list[str]) -> int:
    """Train, validate, export."""
    return train.main(options.parse(argv))
