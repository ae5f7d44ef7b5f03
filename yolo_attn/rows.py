"""Imported by files that `yolo-attn patch` has extended (`from yolo_attn import rows`); they outlive the kit's layout."""

from .hook.seams import find, place

__all__ = ["find", "place"]
