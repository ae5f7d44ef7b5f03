"""What is said of gates, in English and Chinese."""

from __future__ import annotations

from ..pages.texts import Texts
from .gate_test import ATTENDS, BARELY, CONSTANT, SMALL, UNTOLD, Measured, Row

__all__ = ["Words", "sentence", "summary"]

_EN = {
    "title": "Gates of {name}",
    "about": "{images} images of '{split}'. A gate is what the attention multiplies its input by; its spread is the standard "
    "deviation over images. A channel or a cell of the map is still where its spread is at most {tolerance:g}, dead where its "
    "gate is below 0.02, and saturated where it stands at an end of its range, each in 99 % of what was seen.",
    "rows": "Row by row",
    "frozen": "The frozen-gate test",
    "frozen_about": "Each gate is replaced by its mean over {train} training images, and mAP50-95 is measured again on the "
    "same {images} images of '{split}'. What is lost is what looking at the image is worth to this detector. Intervals are "
    "95 % over images, of all lines together.",
    "way": "gates", "map": "mAP50-95", "change": "change", "interval": "95 % interval", "as_is": "as they are",
    "at_mean": "every gate at its mean", "at_number": "one number a layer", "alone": "{row} alone at its mean",
    "location": "gate", "for": "a number for each", "how": "known by", "mean": "mean", "spread": "spread", "still": "still",
    "dead": "dead", "saturated": "saturated", "by_class": "explained by classes", "verdict": "verdict",
    "channel": "channel", "spatial": "position", "value": "channel and position",
    "declared": "its class", "recognised by its ratio": "output over input",
    "fig_gates": "Mean gate of each channel, in the order of the mean over all images; the band is one spread to either "
    "side. Thin lines are the images that hold a class. Where they lie on one another, the gates do not depend on the class. "
    "(Figures 6 and 7 of the SE paper, arXiv 1709.01507.)",
    "fig_maps": "Gates that have a number for each position: mean and spread over images in each cell of the map.",
    "fig_spread": "Spread of each channel or cell, by depth; below the dashed line they are still.",
    "fig_frozen": "mAP50-95 with frozen gates less mAP50-95 as it is, with the 95 % interval over images.",
    "channels": "channels", "gate_axis": "gate", "all": "all images", "depth": "row, by depth", "change_axis": "change of mAP50-95",
    "without": "Attention without a gate", ATTENDS: "attends", BARELY: "barely", CONSTANT: "a constant", UNTOLD: "cannot tell",
    "class_test": "The share of the variance over images that the classes of an image explain, and the p of a permutation "
    "test. A few images and many classes explain something by chance; p says whether it is more than that.",
    "say_attends": "{row} attends: frozen at its mean, mAP50-95 changes by {change:+.4f} ({low:+.4f} to {high:+.4f})",
    "say_barely": "{row} barely attends: {moving:.0%} of its gates move by more than {tolerance:g} over images, but frozen at "
    "its mean, mAP50-95 changes by {change:+.4f} ({low:+.4f} to {high:+.4f}), less than {small:g} either way",
    "say_untold": "; frozen at its mean, mAP50-95 changes by {change:+.4f} ({low:+.4f} to {high:+.4f}): these images do not "
    "tell whether it attends, more of them may",
    "say_constant": "{row} is a constant: {still:.0%} of its gates move by at most {tolerance:g} over images",
    "say_constant_frozen": "; frozen at its mean, mAP50-95 changes by {change:+.4f} ({low:+.4f} to {high:+.4f})",
    "say_few": "; frozen at its mean, mAP50-95 changes by {change:+.4f}; of fewer than 10 images with objects there is no interval",
    "say_moves": "{row}: {moving:.0%} of its gates move by more than {tolerance:g} over images",
    "say_untested": "; whether mAP needs it was not measured",
    "gain": ": this row does harm on these images",
}
_ZH = {
    "title": "{name} 的门控",
    "about": "“{split}” 中的 {images} 张图像。门控是注意力与其输入相乘的系数；离散度是它在各图像之间的标准差。离散度不超过 {tolerance:g} 的通道或"
    "网格称为静止；在 99 % 的观测中门控低于 0.02 的称为失活，处于取值范围端点的称为饱和。",
    "rows": "逐行结果",
    "frozen": "冻结门控测试",
    "frozen_about": "把每个门控替换为它在 {train} 张训练图像上的均值，再在同样的 {images} 张 “{split}” 图像上测量 mAP50-95。损失的部分就是“看图像”对"
    "这个检测器的价值。区间为对图像的 95 % 区间，对所有行同时成立。",
    "way": "门控", "map": "mAP50-95", "change": "变化", "interval": "95 % 区间", "as_is": "原样",
    "at_mean": "全部门控取均值", "at_number": "每层一个常数", "alone": "仅 {row} 取均值",
    "location": "门控", "for": "每个取值对应", "how": "识别依据", "mean": "均值", "spread": "离散度", "still": "静止",
    "dead": "失活", "saturated": "饱和", "by_class": "类别可解释的比例", "verdict": "结论",
    "channel": "通道", "spatial": "位置", "value": "通道与位置",
    "declared": "类的声明", "recognised by its ratio": "输出与输入之比",
    "fig_gates": "每个通道的平均门控，按全部图像上的均值排序；色带为上下各一个离散度。细线是包含某一类别的图像。细线重合说明门控与类别无关。"
    "（SE 论文 arXiv 1709.01507 的图 6 和图 7。）",
    "fig_maps": "逐位置的门控：特征图每个网格在各图像之间的均值与离散度。",
    "fig_spread": "各通道或网格的离散度，按深度排列；虚线以下为静止。",
    "fig_frozen": "冻结门控后的 mAP50-95 减去原样的 mAP50-95，以及对图像的 95 % 区间。",
    "channels": "通道", "gate_axis": "门控", "all": "全部图像", "depth": "行（按深度）", "change_axis": "mAP50-95 的变化",
    "without": "没有门控的注意力", ATTENDS: "有注意力作用", BARELY: "作用甚微", CONSTANT: "常数", UNTOLD: "无法判断",
    "class_test": "图像中的类别能解释的图像间方差比例，以及置换检验的 p 值。图像少、类别多时，偶然也会解释一部分；p 值说明是否超出偶然。",
    "say_attends": "{row} 有注意力作用：固定为均值后，mAP50-95 变化 {change:+.4f}（{low:+.4f} 至 {high:+.4f}）",
    "say_barely": "{row} 作用甚微：{moving:.0%} 的门控在图像之间的变动超过 {tolerance:g}，但固定为均值后，mAP50-95 变化 {change:+.4f}"
    "（{low:+.4f} 至 {high:+.4f}），两个方向都小于 {small:g}",
    "say_untold": "；固定为均值后，mAP50-95 变化 {change:+.4f}（{low:+.4f} 至 {high:+.4f}）：这些图像无法判断，更多图像也许可以",
    "say_constant": "{row} 是常数：{still:.0%} 的门控在图像之间的变动不超过 {tolerance:g}",
    "say_constant_frozen": "；固定为均值后，mAP50-95 变化 {change:+.4f}（{low:+.4f} 至 {high:+.4f}）",
    "say_few": "；固定为均值后，mAP50-95 变化 {change:+.4f}；含目标的图像少于 10 张，无法给出区间",
    "say_moves": "{row}：{moving:.0%} 的门控在图像之间的变动超过 {tolerance:g}",
    "say_untested": "；未测量 mAP 是否需要它",
    "gain": "：在这些图像上，这一行是有害的",
}


class Words(Texts):
    """The texts in one language."""

    def __init__(self, language: str) -> None:
        super().__init__({"en": _EN, "zh": _ZH}, language)


def sentence(row: Row, words: Words) -> str:
    """Return what is to be said of a row."""
    held = {"row": row.location, "moving": 1 - row.still, "still": row.still, "tolerance": row.tolerance}
    frozen = row.frozen
    ends = {} if frozen is None else {"change": frozen.change, "low": frozen.low, "high": frozen.high}
    if row.verdict == ATTENDS and frozen is not None:
        return words("say_attends", **held, **ends) + (words("gain") if frozen.change > 0 else "")
    if row.verdict == BARELY:
        return words("say_barely", **held, **ends, small=SMALL)
    text = words("say_constant" if row.verdict == CONSTANT else "say_moves", **held)
    if frozen is None:
        return text + ("" if row.verdict == CONSTANT else words("say_untested"))
    tested = "say_constant_frozen" if row.verdict == CONSTANT else "say_untold"
    return text + words("say_few" if frozen.low is None else tested, **ends)


def summary(measured: Measured, words: Words) -> list[tuple[str, float, float | None, float | None, float | None]]:
    """Return the lines of the frozen-gate test: what, mAP50-95, change, ends of the interval; of the first line, of the mAP."""
    if measured.value is None:
        return []
    value, low, high = measured.value
    out: list[tuple[str, float, float | None, float | None, float | None]] = [(words("as_is"), value, None, low, high)]
    for key, way in (("at_mean", measured.at_mean), ("at_number", measured.at_number)):
        if way is not None:
            out.append((words(key), way.value, way.change, way.low, way.high))
    for row in measured.rows:
        if row.frozen is not None:
            f = row.frozen
            out.append((words("alone", row=row.location), f.value, f.change, f.low, f.high))
    return out
