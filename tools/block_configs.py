"""YAMLs with attention inside blocks: C3 and C2f with attention, BiFPN, ResNet classifiers and backbones.

Used by ``make_configs.py``, which writes and checks every shipped YAML.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "model_cfgs"

# File name: base, block to replace, its replacement, description.
SWAPS = {
    "yolov5_c3se": ("yolov5", "C3", "C3SE", "SE (arXiv:1709.01507)"),
    "yolov5_c3eca": ("yolov5", "C3", "C3ECA", "ECA (arXiv:1910.03151)"),
    "yolov5_c3cbam": ("yolov5", "C3", "C3CBAM", "CBAM (arXiv:1807.06521)"),
    "yolov5_c3ca": ("yolov5", "C3", "C3CA", "coordinate attention (arXiv:2103.02907)"),
    "yolov8_c2fse": ("yolov8", "C2f", "C2fAttention", "SE (arXiv:1709.01507)"),
}
ATTENTION = {"se": ("SE", "SEResNetLayer", "1709.01507"), "eca": ("ECA", "ECAResNetLayer", "1910.03151")}


def files() -> dict[str, str]:
    """Return the text of each file by name, without those whose attention is not registered."""
    from yolo_attn.modules.resnet import LAYOUTS
    from yolo_attn.registry.registry import find

    out = {}
    needs = {"yolov5_c3cbam": "CBAM", "yolov5_c3ca": "CoordAtt"}
    for name, (base, block, instead, words) in SWAPS.items():
        if find(needs.get(name, instead)) is not None:
            out[f"{name}.yaml"] = swapped(base, block, instead, words)
    out["yolov5_bifpn.yaml"] = bifpn()
    for short in ATTENTION:
        for depth in LAYOUTS:
            out[f"{short}resnet{depth}-cls.yaml"] = classifier(short, depth)
            out[f"yolov5_{short}resnet{depth}.yaml"] = detector(short, depth)
    out["seresnet50-small-cls.yaml"] = classifier("se", 50, small=True)
    return out


def base_text(base: str) -> tuple[str, str]:
    """Return the model's name and the body of a plain detector's YAML."""
    text = (FOLDER / f"{base}.yaml").read_text(encoding="utf-8")
    return text[2 : text.index(",")], text[text.index("\nnc:") :]


def swapped(base: str, block: str, instead: str, words: str) -> str:
    """A plain detector with another block in its backbone; row numbers are unchanged."""
    model, body = base_text(base)
    backbone, head = body.split("\nhead:")
    return (
        f"# {model} with {words} in each bottleneck of the backbone's {block}\n"
        f"# {instead} replaces {block}: row numbers are unchanged, and pretrained weights of the plain model load by name. With {{start: identity}}\n"
        f"# at the end of its arguments, each row starts as the plain block.\n"
        f"{backbone.replace(f', {block}, ', f', {instead}, ')}\nhead:{head}"
    )


def bifpn() -> str:
    """YOLOv5 with weighted fusion in the neck and BiFPN's extra edge from the backbone at P4."""
    model, body = base_text("yolov5")
    body = body.replace(", Concat, ", ", WeightedConcat, ")
    edge = "[[-1, 14], 1, WeightedConcat, [1]]"
    if body.count(edge) != 1:
        raise ValueError(f"yolov5.yaml: expected one row {edge}")
    body = body.replace(edge, "[[-1, 14, 6], 1, WeightedConcat, [1]]").replace(
        "with head P4", "with head and backbone P4"
    )
    return (
        f"# {model} with BiFPN's weighted fusion in the neck (EfficientDet, arXiv:1911.09070)\n"
        f"# Each input of a Concat has a learned weight; P4 also reads the backbone's P4, BiFPN's extra edge.\n{body}"
    )


def stages(short: str, depth: int, stem: str) -> tuple[str, int]:
    """Return the rows of the backbone, and the channels of the last."""
    from yolo_attn.modules.resnet import LAYOUTS

    kind, counts = LAYOUTS[depth]
    layer = ATTENTION[short][1]
    options = ["block: basic"] * (kind == "basic") + ["bias: True"] * (short == "se")
    tail = f", {{{', '.join(options)}}}" if options else ""
    rows, c2 = [f"  - [-1, 1, ResNetStem, {stem}] # 0-P2/4"], 64 * (4 if kind == "bottleneck" else 1)
    if "False" in stem:
        rows[0] = rows[0].replace("P2/4", "P0/1")
    for j, n in enumerate(counts):
        level = (0 if "False" in stem else 2) + j
        rows.append(f"  - [-1, {n}, {layer}, [{c2 * 2**j}, {1 if j == 0 else 2}{tail}]] # {j + 1}-P{level}/{2**level}")
    return "\n".join(rows), c2 * 8


def classifier(short: str, depth: int, small: bool = False) -> str:
    """A ResNet classifier with the head of ResNet."""
    name, _, arxiv = ATTENTION[short]
    rows, _ = stages(short, depth, "[64, 3, 1, False]" if small else "[64]")
    what = " for small images: 3x3 stem, no max-pooling" if small else ", classification"
    biases = "# bias: the excitation has biases, as in the authors' models.\n" if short == "se" else ""
    return (
        f"# {name}-ResNet-{depth} (arXiv:{arxiv}){what}\n{biases}"
        f"# Weights of torchvision and timm load through yolo_attn.modules.resnet.rows_state_dict.\n\n"
        f"nc: 1000 # classes\ndepth_multiple: 1.0\nwidth_multiple: 1.0\n\n"
        f"# [from, number, module, args]; a stage's args: output channels, stride of its first block\n"
        f"backbone:\n{rows}\n\nhead:\n  - [[-1], 1, Classifier, [nc]] # 5\n"
    )


def detector(short: str, depth: int) -> str:
    """YOLOv5's neck and head on a ResNet backbone: of size s for 18 and 34 layers, of size l for 50 and more."""
    name, _, arxiv = ATTENTION[short]
    rows, c5 = stages(short, depth, "[64]")
    size, n, c = ("l", 3, 1024) if c5 == 2048 else ("s", 1, 512)
    biases = "# bias: the excitation has biases, as in the authors' models.\n" if short == "se" else ""
    return (
        f"# YOLOv5{size} neck and head on {name}-ResNet-{depth} (arXiv:{arxiv}), P3 to P5\n{biases}"
        f"# Weights of torchvision and timm load through yolo_attn.modules.resnet.rows_state_dict.\n\n"
        f"nc: 80 # classes\ndepth_multiple: 1.0\nwidth_multiple: 1.0\n\n"
        f"# [from, number, module, args]; a stage's args: output channels, stride of its first block\n"
        f"backbone:\n{rows}\n  - [-1, 1, SPPF, [{c}, 5]] # 5\n\nhead:\n"
        f"  - [-1, 1, Conv, [{c // 2}, 1, 1]]\n  - [-1, 1, nn.Upsample, [None, 2, nearest]]\n"
        f"  - [[-1, 3], 1, Concat, [1]] # 8, with backbone P4\n  - [-1, {n}, C3, [{c // 2}, False]]\n\n"
        f"  - [-1, 1, Conv, [{c // 4}, 1, 1]]\n  - [-1, 1, nn.Upsample, [None, 2, nearest]]\n"
        f"  - [[-1, 2], 1, Concat, [1]] # 12, with backbone P3\n"
        f"  - [-1, {n}, C3, [{c // 4}, False]] # 13 (P3/8, small objects)\n\n"
        f"  - [-1, 1, Conv, [{c // 4}, 3, 2]]\n  - [[-1, 10], 1, Concat, [1]] # 15, with head P4\n"
        f"  - [-1, {n}, C3, [{c // 2}, False]] # 16 (P4/16, medium objects)\n\n"
        f"  - [-1, 1, Conv, [{c // 2}, 3, 2]]\n  - [[-1, 6], 1, Concat, [1]] # 18, with head P5\n"
        f"  - [-1, {n}, C3, [{c}, False]] # 19 (P5/32, large objects)\n\n"
        f"  - [[13, 16, 19], 1, Detect, [nc]] # Detect(P3, P4, P5)\n"
    )
