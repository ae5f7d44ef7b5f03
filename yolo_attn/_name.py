"""The name under which this package was imported: `yolo_attn`, or that of a vendored copy."""

__all__ = ["PACKAGE"]

PACKAGE = __name__.rpartition(".")[0]
