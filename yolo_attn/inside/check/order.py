"""The names of the checks in their order, and which say nothing once another has failed; without torch."""

from __future__ import annotations

from collections.abc import Iterable

from .verdict import SKIPPED, Finding

__all__ = ["BASIS", "FIRST", "NAMES", "skipped"]

# The names of the checks, in order; `run` holds what they do, and needs torch.
NAMES = (
    "constructor", "runs", "widths", "odd-sizes", "one-pixel", "one-image", "input-kept", "repeatable", "state",
    "memory-format", "built-in-forward", "device", "fp64", "autocast", "half-weights", "largest", "gradient", "constant-map",
    "parameters", "copy", "save", "ema", "fuse", "names", "optimizer", "static-onnx", "dynamic-onnx", "portable", "opencv",
    "compile", "cost", "shrinkage",
)  # fmt: skip
FIRST = ("constructor", "runs")  # where one of these fails, no other can be made
# Where one of these fails, two results on one input differ whatever is compared.
BASIS = ("input-kept", "repeatable", "state")
COMPARE = frozenset({"repeatable", "state", "memory-format", "copy", "save", "ema", "fuse", "static-onnx", "dynamic-onnx", "opencv", "compile", "gradient"})


def skipped(name: str, failed: Iterable[str]) -> Finding | None:
    """Return the finding of a check that says nothing once others have failed; None where it is to be made."""
    for other in failed:
        if other in FIRST or (name in COMPARE and name != other):
            return Finding(name, SKIPPED, f"not made: {other} failed")
    return None
