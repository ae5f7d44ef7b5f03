"""What a parser that `yolo-attn patch` extended on disk calls: `from yolo_attn import rows`. Such files outlive layouts."""

from .hook.seams import find, place

__all__ = ["find", "place"]
