"""The name that this package was imported under: `yolo_attn`, or that of a vendored copy."""

__all__ = ["PACKAGE"]

PACKAGE = __name__.rpartition(".")[0]
