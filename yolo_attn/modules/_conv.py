"""Shared parts of the kit's blocks: the hosts' convolution unit with the hosts' names, and attention by name.

The unit is written here rather than imported, so that a block is the same class on every host, pickles by one path
and imports no host. Its parameters carry the hosts' names (``conv``, ``bn``), so that weights of the block that it
replaces load by name.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..registry import layer_class, registry
from ..registry.binding import Binding
from ..registry.forms import adapt
from ._base import check_number

__all__ = ["Conv", "attention_of", "check_act", "check_widths", "fold_batch_norm", "fuse", "hidden_width"]

# Where the hosts keep the activation that a YAML's `activation:` asked for, while that YAML is being built.
_HOST_CONVS = ("ultralytics.nn.modules.conv", "models.common", "yolov5.models.common")


class Conv(nn.Module):
    """Convolution, batch normalization, activation: (B, c1, H, W) -> (B, c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size, or its height and width.
        s: Stride.
        p: Padding. Default: keeps the size at stride 1.
        g: Groups.
        d: Dilation.
        act: True for the default (SiLU, or the `activation:` of the YAML being built), False for none, or a module.

    Raises:
        ValueError: Another `act`.
    """

    default_act = nn.SiLU()

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | tuple[int, int] = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        check_act(type(self).__name__, act)
        same = (d * (k - 1) // 2) if isinstance(k, int) else tuple(d * (x - 1) // 2 for x in k)
        padding: Any = same if p is None else p
        self.conv = nn.Conv2d(c1, c2, k, s, padding, groups=g, dilation=d, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2)
        self.act = _default_act() if act is True else act if isinstance(act, nn.Module) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return act(bn(conv(x)))."""
        return self.act(self.bn(self.conv(x)))

    def fuse_bn(self) -> None:
        """Fold the batch normalization into the convolution, for inference."""
        fold_batch_norm(self, "conv", "bn")


def _default_act() -> nn.Module:
    """The activation of the host that is building, where its YAML asked for another one than SiLU."""
    for name in _HOST_CONVS:
        act = getattr(getattr(sys.modules.get(name), "Conv", None), "default_act", None)
        if isinstance(act, nn.Module) and not isinstance(act, nn.SiLU):
            return act
    return Conv.default_act


def fold_batch_norm(block: nn.Module, conv: str, bn: str) -> None:
    """Fold `block.bn` into `block.conv` and replace it by an identity; a second call does nothing.

    Does nothing if either was replaced, for instance by a quantized convolution, whose ranges would have to change.
    """
    norm = getattr(block, bn)
    if type(norm) is nn.BatchNorm2d and type(getattr(block, conv)) is nn.Conv2d:
        training = block.training
        block.eval()  # folding uses the running statistics
        setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), norm).requires_grad_(False))
        setattr(block, bn, nn.Identity())
        block.train(training)


def fuse(model: nn.Module) -> nn.Module:
    """Fold the batch normalization of every block of the kit in `model`, in place, and return it.

    The hosts' ``model.fuse()`` folds only their own convolution classes, and calls this through the hook; without it
    outputs are the same, and inference with attention looks slower than it is.
    """
    for module in list(model.modules()):
        fold = getattr(module, "fuse_bn", None)
        if callable(fold) and type(module).__module__.startswith(__package__ + "."):
            fold()
    return model


def attention_of(module: str | type | None, channels: int, owner: str, options: dict[str, Any]) -> nn.Module:
    """Build the attention module of a block.

    Args:
        module: A registered name or alias, a class, or None for a block without attention.
        channels: Channels of its input.
        owner: The block's name, for error messages.
        options: Further keyword arguments of the attention module.

    Raises:
        UnknownModuleError: No module has that name; the message suggests the nearest ones.
        ValueError: The module does not keep channels and size.
        TypeError: The module does not take an option, or `module` is none of these.
    """
    if module is None:
        if options:
            raise TypeError(f"{owner} without attention (module: null) takes no {', '.join(options)}")
        return nn.Identity()
    if not isinstance(module, (str, type)):
        raise TypeError(f"{owner}: module must be a registered name such as SE, a class, or null, got {module!r}")
    if isinstance(module, str):
        entry = registry.get_entry(module)
        cls, binding, name, kind = entry.cls, entry.binding, entry.name, entry.kind
    else:
        cls, name, kind = module, getattr(module, "__name__", repr(module)), ""
        binding = registry.binding_of(cls) or Binding.of(cls)
    if binding.is_block or binding.out_channels is not None or kind not in ("", "channel", "spatial", "both"):
        raise ValueError(
            f"{owner} needs a module that keeps channels and size, such as SE, ECA or CBAM, and {name} is a block"
        )
    given, named = binding.lead(channels)
    options = {**named, **options}
    try:
        binding.signature.bind(*given, **options)
    except TypeError as exc:
        raise TypeError(f"{owner} passes {sorted(options)} on to {name}: {exc}; {binding.options()}") from exc
    return adapt(cls(*given, **options), binding.form)


def check_widths(owner: str, **widths: object) -> None:
    """Check that channel counts and repeats are positive integers.

    Raises:
        TypeError: It is a list, since the row's `from` names several inputs, or not an integer.
        ValueError: Below 1.
    """
    for name, value in widths.items():
        if isinstance(value, (list, tuple)):
            raise TypeError(f"{owner} takes one input, but its row's 'from' names {len(value)}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{owner} needs an integer for {name}, got {value!r}")
        if value < 1:
            raise ValueError(f"{owner} needs at least 1 for {name}, got {value}")


def check_act(owner: str, act: object) -> None:
    """Check that `act` is True, False, None or a module.

    Raises:
        ValueError: Anything else: a name such as ``relu`` would silently mean no activation.
    """
    if not (act is None or isinstance(act, (bool, nn.Module))):
        raise ValueError(
            f"{owner}: act must be True (the YAML's 'activation', SiLU without one), False for none, or a module, "
            f"got {act!r}"
        )


def hidden_width(owner: str, c2: int, e: object, groups: int = 1) -> int:
    """Return the hidden channels of a block, the fraction `e` of `c2` rounded down.

    Raises:
        ValueError: `e` is not a number, leaves no channel, or leaves a number that `groups` does not divide.
    """
    c = int(c2 * check_number(e, f"{owner}: e"))
    if c < 1:
        raise ValueError(f"{owner}: e={e!r} of {c2} channels leaves {c}")
    if c % groups:
        raise ValueError(f"{owner}: g={groups} does not divide the {c} hidden channels")
    return c


layer_class.check_class(Conv)  # loads under weights_only=True inside the registered blocks
