"""SE-ResNet and ECA-ResNet, 18 to 152 layers, as rows for YOLO and as classifiers

Deep Residual Learning, https://arxiv.org/abs/1512.03385, table 1, with attention in every residual block:
Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, table 1; ECA-Net, https://arxiv.org/abs/1910.03151.

Parameters at 1000 classes, all recomputed in the tests (ResNet-50 alone: 25,557,032):

- SE-ResNet-50 whose excitation has biases, as the authors' released models and timm's ``seresnet50`` have:
  28,088,024. Equation 3 of the paper has no biases: 28,071,976. The paper prints 28.1 M, which is both.
- The same with biases, a 3x3 stem and no max-pooling, as used on small images: 28,080,344.
- ECA-ResNet-50: 25,557,118, equal to timm's ResNet-50 with ECA; equation 12 gives k = 5 at 256, 512 and 1024
  channels and 7 at 2048, 86 weights in 16 blocks. The paper's abstract counts 80, which is k = 5 throughout
  (``kernel_size: 5``), and its 24.37 M are units of 2^20: 25,557,112 / 2^20 = 24.37.

SE adds 2 C^2 / r weights (and C + C/r biases) a block of C channels, ECA adds k.

timm's ``seresnet18`` and ``seresnet34`` round hidden widths up to a multiple of 8 and so are slightly larger than here;
its ``legacy_seresnet18`` and ``legacy_seresnet34`` have these counts. Weights of torchvision and timm load by name
into :class:`AttentionResNet`, and through :func:`rows_state_dict` into the YAMLs' rows. torchvision's epsilon of batch
normalization is 1e-5; the ultralytics host sets 1e-3 on every model that it builds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import check_class, register
from ._base import check_flag, spatial_mean
from ._conv import check_widths, fold_batch_norm
from ._gates import HOLDS, Gates
from .residual import SEBasicBlock, SEBottleneck, _conv

__all__ = [
    "LAYOUTS",
    "AttentionResNet",
    "Classifier",
    "ECAResNetLayer",
    "ResNetAttention",
    "ResNetStem",
    "SEResNetLayer",
    "eca_resnet",
    "rows_state_dict",
    "se_resnet",
]

# Table 1 of 1512.03385: blocks of the four stages and their kind, by depth.
LAYOUTS: dict[int, tuple[str, tuple[int, int, int, int]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
BLOCKS = {"basic": SEBasicBlock, "bottleneck": SEBottleneck}


@register(
    "ResNetStem",
    paper="Deep Residual Learning for Image Recognition",
    arxiv="1512.03385",
    kind="block",
    oracle="torchvision resnet50",
    use="the first row of a ResNet backbone",
)
class ResNetStem(nn.Module):
    """ResNet's stem, (B, c1, H, W) -> (B, c2, H/4, W/4).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size; 3 for small images.
        s: Stride of the convolution; 1 for small images.
        pool: Whether the 3x3 max-pooling of stride 2 follows.
    """

    gates: ClassVar[Gates] = "it holds no attention"

    def __init__(self, c1: int, c2: int, k: int = 7, s: int = 2, pool: bool = True) -> None:
        super().__init__()
        check_widths("ResNetStem", c1=c1, c2=c2, k=k, s=s)
        check_flag(pool, "ResNetStem: pool")
        self.conv1 = _conv(c1, c2, k, s)
        self.bn1 = nn.BatchNorm2d(c2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return maxpool(relu(bn1(conv1(x))))."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def fuse_bn(self) -> None:
        """Fold the batch normalization into the convolution, for inference."""
        fold_batch_norm(self, "conv1", "bn1")


@register(
    "ResNetAttention",
    aliases=("ResNetAttentionLayer",),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="block",
    oracle="timm ResNet",
    use="one stage of a ResNet with any attention in each block; module: null is plain ResNet",
)
class ResNetAttention(nn.Sequential):
    """One stage of a ResNet with attention, (B, c1, H, W) -> (B, c2, H/stride, W/stride).

    In a row: ``[-1, 4, ResNetAttention, [512, 2, {module: CBAM}]]``, four blocks, the first of stride 2.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Residual blocks.
        stride: Stride of the first block.
        block: ``bottleneck`` (50 layers and more) or ``basic`` (18 and 34).
        module: A registered attention module, by name; None for none.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: An unknown `block`, or a number below 1.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        stride: int = 1,
        *,
        block: str = "bottleneck",
        module: str | type | None = "SEAttention",
        **options: Any,
    ) -> None:
        check_widths(type(self).__name__, c1=c1, c2=c2, n=n, stride=stride)
        if block not in BLOCKS:
            raise ValueError(f"block must be 'basic' or 'bottleneck', got {block!r}")
        build = BLOCKS[block]
        strides = [stride] + [1] * (n - 1)
        super().__init__(*(build(c2 if j else c1, c2, s, module=module, **options) for j, s in enumerate(strides)))


@register(
    "SEResNetLayer",
    aliases=("SEResNetStage",),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="block",
    oracle="timm seresnet50",
    use="one stage of SE-ResNet",
)
class SEResNetLayer(ResNetAttention):
    """One stage of SE-ResNet; see :class:`ResNetAttention`."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, stride: int = 1, *, block: str = "bottleneck", **options: Any
    ) -> None:
        super().__init__(c1, c2, n, stride, block=block, module="SEAttention", **options)


@register(
    "ECAResNetLayer",
    aliases=("ECAResNetStage",),
    paper="ECA-Net: Efficient Channel Attention for Deep CNNs",
    arxiv="1910.03151",
    kind="block",
    oracle="timm resnet50 with attn_layer='eca'",
    use="one stage of ECA-ResNet",
)
class ECAResNetLayer(ResNetAttention):
    """One stage of ECA-ResNet; see :class:`ResNetAttention`."""

    attention: ClassVar[str] = "ECA"

    def __init__(
        self, c1: int, c2: int, n: int = 1, stride: int = 1, *, block: str = "bottleneck", **options: Any
    ) -> None:
        super().__init__(c1, c2, n, stride, block=block, module="ECA", **options)


@register(
    "Classifier",  # the ultralytics host reads the task off this name
    paper="Deep Residual Learning for Image Recognition",
    arxiv="1512.03385",
    kind="head",
    oracle="torchvision resnet50",
    use="the last row of a classifier: mean over positions, one linear layer",
    lists=False,
    out_channels=lambda channels, num_classes: num_classes,
)
class Classifier(nn.Module):
    """ResNet's head, list of (B, C_i, H, W) -> (B, num_classes). In a row: ``[[-1], 1, Classifier, [nc]]``.

    The host's own ``Classify`` puts a 1x1 convolution to 1280 channels first, which no ResNet has.
    Returns scores (logits) in training. Otherwise probabilities, alone or, as the ultralytics host wants it since
    8.3, together with the scores.

    Args:
        channels: Channels of the input, or of each input of a list, which are concatenated.
        num_classes: Number of classes.
    """

    gates: ClassVar[Gates] = "it holds no attention"

    def __init__(self, channels: int | list[int], num_classes: int) -> None:
        super().__init__()
        widths = list(channels) if isinstance(channels, (list, tuple)) else [channels]
        for width in widths:
            check_widths("Classifier", channels=width, num_classes=num_classes)
        self.nc = num_classes
        self.linear = nn.Linear(sum(widths), num_classes)
        self.pairs = _host_wants_pairs()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.pairs = _host_wants_pairs()  # a checkpoint may meet another version of the host

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Return scores in training, else probabilities."""
        x = x if isinstance(x, Tensor) else torch.cat(list(x), 1)
        score = self.linear(spatial_mean(x).flatten(1))
        if self.training:
            return score
        probability = score.softmax(1)
        return (probability, score) if self.pairs and not _exporting() else probability


def _host_wants_pairs() -> bool:
    """Whether the host's own head returns (probabilities, scores) outside training: those have an export flag."""
    head = sys.modules.get("ultralytics.nn.modules.head")
    return hasattr(getattr(head, "Classify", None), "export")


def _exporting() -> bool:
    exporting = getattr(getattr(torch, "compiler", None), "is_exporting", None)
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or bool(exporting and exporting())


class AttentionResNet(nn.Module):
    """A whole ResNet classifier with attention, (B, 3, H, W) -> scores (B, num_classes).

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: Number of classes.
        module: A registered attention module, by name; None for plain ResNet.
        small_images: 3x3 stem of stride 1 and no max-pooling.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        ValueError: Another `depth`.
    """

    def __init__(
        self,
        depth: int = 50,
        num_classes: int = 1000,
        *,
        module: str | type | None = "SEAttention",
        small_images: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if depth not in LAYOUTS:
            raise ValueError(f"depth must be one of {', '.join(map(str, LAYOUTS))}, got {depth!r}")
        block, counts = LAYOUTS[depth]
        stem = ResNetStem(3, 64, 3, 1, False) if small_images else ResNetStem(3, 64)
        self.conv1, self.bn1, self.relu, self.maxpool = stem.conv1, stem.bn1, stem.relu, stem.maxpool
        c1 = 64
        for j, n in enumerate(counts):
            c2 = 64 * 2**j * (4 if block == "bottleneck" else 1)
            stage = ResNetAttention(c1, c2, n, 1 if j == 0 else 2, block=block, module=module, **options)
            setattr(self, f"layer{j + 1}", stage)
            c1 = c2
        self.fc = nn.Linear(c1, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the four stages, strides 4, 8, 16 and 32."""
        outputs = [self.maxpool(self.relu(self.bn1(self.conv1(x))))]
        for j in range(1, 5):
            outputs.append(getattr(self, f"layer{j}")(outputs[-1]))
        return outputs[1:]

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores."""
        return self.fc(spatial_mean(self.stages(x)[-1]).flatten(1))

    def fuse_bn(self) -> None:
        """Fold the stem's batch normalization; the blocks fold their own."""
        fold_batch_norm(self, "conv1", "bn1")


def se_resnet(depth: int = 50, num_classes: int = 1000, *, bias: bool = True, **options: Any) -> AttentionResNet:
    """Return SE-ResNet. The excitation has biases, as in the authors' models; equation 3 has none.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: Number of classes.
        bias: Whether the excitation's layers have biases.
        options: Passed on to :class:`AttentionResNet`.
    """
    return AttentionResNet(depth, num_classes, module="SEAttention", bias=bias, **options)


def eca_resnet(depth: int = 50, num_classes: int = 1000, **options: Any) -> AttentionResNet:
    """Return ECA-ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: Number of classes.
        options: Passed on to :class:`AttentionResNet`, e.g. ``kernel_size``.
    """
    return AttentionResNet(depth, num_classes, module="ECA", **options)


def rows_state_dict(state: Mapping[str, Tensor], prefix: str = "model.") -> dict[str, Tensor]:
    """Rename a ResNet state dict of torchvision or timm to the rows of the kit's ResNet YAMLs.

    ``conv1`` becomes row 0's, ``layer1`` row 1, up to ``layer4`` row 4; ``fc`` becomes row 5's ``linear``, which only
    the classification YAMLs have. Load the result with ``strict=False``.

    Args:
        state: Keys such as ``layer1.0.conv1.weight``.
        prefix: What precedes the row number, ``model.`` in the ultralytics host.
    """
    renamed = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head in ("conv1", "bn1"):
            renamed[f"{prefix}0.{key}"] = value
        elif head.startswith("layer"):
            eca = rest.endswith(".se.conv.weight") and value.dim() == 3  # timm convolves in 1-D, (1, 1, k)
            renamed[f"{prefix}{head[5:]}.{rest}"] = value.unsqueeze(-1) if eca else value
        elif head == "fc":
            renamed[f"{prefix}5.linear.{rest}"] = value
    return renamed


check_class(AttentionResNet)  # no row names it, but a checkpoint may hold one
