"""A constant in the place of attention, and a network run for all that it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Constant", "constant_gate", "leaves", "outputs", "runs"]


class Constant(nn.Module):
    """What stands in the place of attention whose gate is a constant, (B, C, *) -> (B, C, *).

    Args:
        gate: (C,) the constant.
    """

    gate: Tensor

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate)
        self.gone = False  # the gate is in the weights of other layers already
        self.trace: Any = None  # follows the gate through the network while it is being folded

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated input, or the input alone where the gate is being folded or gone."""
        if self.trace is not None:
            y: Tensor = self.trace.passing(x, self.gate)
            return y
        return x if self.gone else x * self.gate.reshape(1, -1, *[1] * (x.dim() - 2))


@contextmanager
def constant_gate(network: nn.Module, path: str, gate: Tensor) -> Iterator[Constant]:
    """Replace an attention module by a constant, until the block ends with `gone` not set."""
    old = network.get_submodule(path)
    first = next(network.parameters())
    new = Constant(gate.to(first.device, first.dtype))
    for key in ("f", "i", "type", "np"):  # by which the hosts find the inputs of a row
        if hasattr(old, key):
            setattr(new, key, getattr(old, key))
    replace(network, path, new)
    try:
        yield new
    finally:
        if not new.gone:
            replace(network, path, old)


def replace(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, name = path.rpartition(".")
    network.get_submodule(parent)._modules[name] = module


# -- running -------------------------------------------------------------------------------------------------------


@contextmanager
def runs(network: nn.Module, training: bool) -> Iterator[None]:
    """Set a network to what it computes in training or inference, with batch norms and dropout as in inference."""
    modes = [(m, m.training) for m in network.modules()]
    network.train(training)
    for m in network.modules():
        if isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            m.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode


def outputs(network: nn.Module, image: Tensor) -> list[Tensor]:
    """Return all that a network computes of an image in training and inference, but the features that heads hand on."""
    found = []
    for training in (True, False):
        with runs(network, training):
            found += list(leaves(network(image)))
    return found


def leaves(y: Any) -> Iterator[Tensor]:
    """Yield the tensors of what a network returns, but the features that heads hand on."""
    if isinstance(y, Tensor):
        yield y
    elif isinstance(y, dict):
        for key, value in y.items():
            if key != "feats":  # a head's inputs, which the losses use for their shapes
                yield from leaves(value)
    elif isinstance(y, (list, tuple)):
        for value in y:
            yield from leaves(value)
