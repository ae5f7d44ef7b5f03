"""What the page and the figures of `explain` say, in English and Chinese."""

from __future__ import annotations

__all__ = ["TEXTS"]

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What {name} looks at",
        "title_base": "What {name} looks at, beside {base}",
        "counted": "{n} detections in {images} images of {h} x {w} pixels; features of rows {rows}; seed {seed}.",
        "how": "How to read this",
        "how_map": "A map shows where in the image the score of one detection comes from (LayerCAM on the features that the "
        "neck reads from the backbone). Any map lies near its box, whatever the network has learned, because the detection "
        "is of one position of the head.",
        "how_map_head": "A map shows where in the image the score of one detection comes from (LayerCAM on the features that the "
        "head reads). Any map lies near its box, whatever the network has learned, because the detection is of one "
        "position of the head; behind so few layers it lies there almost wholly.",
        "how_chance": "Chance is therefore measured: the same network with its weights shuffled, {draws} times, for the same "
        "positions. A picture says something about what was learned only as far as its numbers are beyond chance.",
        "how_numbers": "Energy: the share of the map inside the box. Insertion: how soon the detection appears as pixels are "
        "put into a blurred image in the order of the map (more is better). Deletion: how long it lasts as they are painted "
        "grey (less is better).",
        "numbers": "Do the maps mean anything?",
        "detector": "detector", "measure": "measure", "value": "mean (95 % over images)", "chance": "shuffled weights (95 % over shufflings)",
        "verdict": "verdict", "energy": "energy in the box", "insertion": "insertion", "deletion": "deletion",
        "beyond chance": "beyond chance", "within chance": "within chance",
        "warning": "{name}: the energy is within chance. Its pictures show where its detections are, and not what it has learned.",
        "differences": "Base and attention",
        "difference": "difference (95 % over images)", "p": "p", "more": "more", "less": "less",
        "not distinguishable": "not distinguishable", "cannot tell": "cannot tell: fewer than five images",
        "p_note": "Paired t tests over images, one observation an image; p is corrected for all tests of the table.",
        "one_each": "These are two checkpoints. Another seed may differ as much as base and attention do; 'yolo-attn compare' "
        "trains several.",
        "curves": "Curves", "curves_caption": "Score as a share of that in the whole image, mean over images. The band is the range "
        "of the shuffled weights.",
        "share": "share of the image", "score": "score", "shuffled": "shuffled",
        "field": "Effective receptive field",
        "field_caption": "Gradient of the central unit of each level toward the pixels, mean over {n} images, logarithmic. The squares "
        "hold 50 % and 95 % of it. What would lie beyond the image is not seen.",
        "level": "level", "side": "side of the square with {share} %, pixels", "stride": "stride {s}",
        "gates": "Gates of positions",
        "gates_note": "How much more each gate lets through inside the boxes than outside, over images, beyond what it does at the "
        "same places of the other images: padding alone makes a gate another one along the border.",
        "gate": "gate", "inside": "inside less outside (95 % over images)",
        "pictures": "Pictures",
        "more_pictures": "{n} more are in the folder pictures.",
        "scale": "One scale for the maps of a detection: both have the sum 1.",
        "notes": "Notes",
        "only": "{n} detections only by {name}.",
        "without": "{n} images without a detection that counts: {files}.",
        "skipped": "{n} files cannot be read as an image: {files}.",
        "left_out": "{n} more images were left out; --limit takes more.",
    },
    "zh": {
        "title": "{name} 在看哪里",
        "title_base": "{name} 在看哪里（与 {base} 对照）",
        "counted": "{images} 张图像中的 {n} 个检测框，输入 {h} x {w} 像素；取第 {rows} 行的特征；随机种子 {seed}。",
        "how": "如何阅读",
        "how_map": "热图显示一个检测框的得分来自图像的哪些位置（LayerCAM，取颈部从骨干读取的特征）。检测框对应检测头的一个位置，"
        "因此不论网络学到了什么，热图总会落在框的附近。",
        "how_map_head": "热图显示一个检测框的得分来自图像的哪些位置（LayerCAM，取检测头读取的特征）。检测框对应检测头的一个位置，"
        "因此不论网络学到了什么，热图总会落在框的附近；其后的层很少，热图几乎全部落在那里。",
        "how_chance": "因此随机水平由测量得到：把同一网络的权重打乱 {draws} 次，对相同的位置求热图。只有数值超出随机水平，图片才说明网络学到了什么。",
        "how_numbers": "能量：热图落在框内的比例。插入：按热图的顺序把像素放回模糊图像时，检测多快出现（越大越好）。"
        "删除：按热图的顺序把像素涂灰时，检测保持多久（越小越好）。",
        "numbers": "热图有意义吗？",
        "detector": "检测器", "measure": "指标", "value": "均值（对图像的 95 % 区间）", "chance": "打乱权重（对打乱的 95 % 区间）",
        "verdict": "结论", "energy": "框内能量", "insertion": "插入", "deletion": "删除",
        "beyond chance": "超出随机水平", "within chance": "在随机水平之内",
        "warning": "{name}：能量在随机水平之内。它的图片只显示检测框在哪里，不说明网络学到了什么。",
        "differences": "基线与注意力",
        "difference": "差值（对图像的 95 % 区间）", "p": "p", "more": "更多", "less": "更少",
        "not distinguishable": "无法区分", "cannot tell": "无法判断：少于五张图像",
        "p_note": "对图像的配对 t 检验，每张图像为一个观测；p 已按表中检验的个数校正。",
        "one_each": "这里只有两个检查点。换一个随机种子，差别可能与基线和注意力之间的差别一样大；'yolo-attn compare' 会训练多个种子。",
        "curves": "曲线", "curves_caption": "得分相对于整张图像得分的比例，对图像取均值。色带为打乱权重的范围。",
        "share": "占图像的比例", "score": "得分", "shuffled": "打乱",
        "field": "有效感受野",
        "field_caption": "各层中心单元对像素的梯度，{n} 张图像的均值，对数刻度。两个方框分别包含其 50 % 和 95 %。图像之外的部分无法看到。",
        "level": "层", "side": "包含 {share} % 的方框边长（像素）", "stride": "步长 {s}",
        "gates": "空间门控",
        "gates_note": "每个门控在框内比框外多放行多少（对图像），已减去它在其他图像相同位置的值：仅填充就会使门控在边缘处不同。",
        "gate": "门控", "inside": "框内减框外（对图像的 95 % 区间）",
        "pictures": "图片",
        "more_pictures": "另有 {n} 张在 pictures 文件夹中。",
        "scale": "同一检测的热图使用同一刻度：两者之和均为 1。",
        "notes": "说明",
        "only": "仅由 {name} 检出 {n} 个。",
        "without": "{n} 张图像没有可用的检测：{files}。",
        "skipped": "{n} 个文件无法作为图像读取：{files}。",
        "left_out": "另有 {n} 张图像未使用；可用 --limit 增加。",
    },
}  # fmt: skip
