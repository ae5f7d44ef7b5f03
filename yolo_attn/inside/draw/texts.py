"""The labels of a drawing in English and Chinese."""

from __future__ import annotations

from ...pages.texts import Texts

__all__ = ["texts"]

_TABLE = {
    "en": {
        "image": "Image", "backbone": "Backbone", "neck1": "Neck, down", "neck-1": "Neck, up", "neck0": "Neck", "output": "Head",
        "attention": "attention", "block": "feature block", "conv": "convolution", "pool": "pooling, split", "join": "joins maps",
        "resize": "changes the size", "head": "head", "size": "{h} × {w} pixels", "beside": "{a}, beside {b}",
        "added": "added", "changed": "changed", "removed": "removed", "was": "was {m}",
    },
    "zh": {
        "image": "输入图像", "backbone": "骨干网络", "neck1": "颈部（向下）", "neck-1": "颈部（向上）", "neck0": "颈部", "output": "输出头",
        "attention": "注意力", "block": "特征块", "conv": "卷积", "pool": "池化、拆分", "join": "特征拼接", "resize": "尺寸变换",
        "head": "输出头", "size": "{h} × {w} 像素", "beside": "{a}，对比 {b}", "added": "新增", "changed": "修改", "removed": "删除",
        "was": "原为 {m}",
    },
}  # fmt: skip


def texts(language: str) -> Texts:
    """Return the labels in a language.

    Raises:
        UsageError: There are none in it.
    """
    return Texts(_TABLE, language)
