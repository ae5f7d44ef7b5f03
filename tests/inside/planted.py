"""Modules with one fault each. The line that a check has to name ends with ``# HERE``; the class says which check finds it."""

import random

import torch
import torch.nn.functional as F
from torch import nn


class Gate(nn.Module):
    """A healthy one: the others are this one with a fault."""

    def __init__(self, channels, reduction=4):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def score(self, z):
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(z))))

    def forward(self, x):
        return x * self.score(x.mean((2, 3), keepdim=True))


class AdaptivePool(Gate):
    found = "dynamic-onnx"

    def __init__(self, channels):
        super().__init__(channels)
        self.pool = nn.AdaptiveAvgPool2d(3)  # HERE

    def forward(self, x):
        return x * self.score(F.avg_pool2d(self.pool(x), 3))


class SumOverflows(Gate):
    found = "autocast half-weights"

    def forward(self, x):
        z = x.sum((2, 3), keepdim=True, dtype=x.dtype) / (x.shape[2] * x.shape[3])  # HERE
        return x * self.score(z)


class SquareOverflows(Gate):
    found = "half-weights"

    def forward(self, x):
        z = (x * x).mean((2, 3), keepdim=True)  # HERE
        return x * self.score(z)


class BufferMissing(Gate):
    found = "save"

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("seen", torch.zeros(1, channels, 1, 1), persistent=False)  # HERE

    def forward(self, x):
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().mean((0, 2, 3), keepdim=True)
        return x * self.score(self.seen + x.mean((2, 3), keepdim=True))


class PlainTensor(Gate):
    found = "save"

    def __init__(self, channels):
        super().__init__(channels)
        self.table = torch.linspace(0, 1, channels).reshape(1, -1, 1, 1)  # HERE

    def forward(self, x):
        return x * self.score(x.mean((2, 3), keepdim=True) + self.table.to(x))


class ListOfLayers(Gate):
    found = "save"

    def __init__(self, channels):
        super().__init__(channels)
        self.branches = [nn.Conv2d(channels, channels, 1)]  # HERE

    def forward(self, x):
        return x * self.score(self.branches[0](x.mean((2, 3), keepdim=True)))


class ViewOnChannelsLast(Gate):
    found = "memory-format"

    def forward(self, x):
        z = x.view(x.shape[0], -1)  # HERE
        return x * self.score(z.reshape(x.shape).mean((2, 3), keepdim=True))


class BatchNormOnOneValue(Gate):
    found = "one-image"

    def __init__(self, channels):
        super().__init__(channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x * self.score(self.bn(x.mean((2, 3), keepdim=True)))  # HERE


class KernelInForward(Gate):
    found = "built-in-forward"

    def forward(self, x):
        conv = nn.Conv2d(x.shape[1], x.shape[1], 1)  # HERE
        return x * self.score(conv(x.mean((2, 3), keepdim=True)))


class LateParameter(Gate):
    found = "built-in-forward"

    def forward(self, x):
        if not hasattr(self, "weight"):
            self.weight = nn.Parameter(torch.ones(1, x.shape[1], 1, 1))  # HERE
        return x * self.score(self.weight * x.mean((2, 3), keepdim=True))


class InPlaceOnInput(Gate):
    found = "input-kept"

    def forward(self, x):
        gate = self.score(x.mean((2, 3), keepdim=True))
        return x.mul_(gate) if not x.requires_grad else x * gate  # HERE


class InPlaceActivation(Gate):
    found = "input-kept"

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        z = self.act(x)  # HERE
        return x * self.score(z.mean((2, 3), keepdim=True))


class RandomGate(Gate):
    found = "repeatable"

    def forward(self, x):
        z = x.mean((2, 3), keepdim=True)
        return x * self.score(z + 0.1 * torch.randn_like(z))  # HERE


class PythonRandom(Gate):
    found = "repeatable"

    def forward(self, x):
        return x * self.score(x.mean((2, 3), keepdim=True)) * random.random()  # HERE


class WrongChannels(Gate):
    found = "runs"

    def forward(self, x):
        gate = self.score(x.mean((2, 3), keepdim=True))
        return torch.cat((x * gate, x), 1)  # HERE


class ItemInForward(Gate):
    found = "dynamic-onnx device"  # the second a warning

    def forward(self, x):
        scale = x.abs().mean().item()  # HERE
        return x * self.score(x.mean((2, 3), keepdim=True) / (scale + 1))


class LambdaInSelf(Gate):
    found = "save"

    def __init__(self, channels):
        super().__init__(channels)
        self.act = lambda z: z * 2  # HERE

    def forward(self, x):
        return x * self.score(self.act(x.mean((2, 3), keepdim=True)))


class UntrainedName(Gate):
    found = "optimizer"  # a warning: newer hosts train it

    def __init__(self, channels):
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, 1))  # HERE

    def forward(self, x):
        return x + self.alpha * x * self.score(x.mean((2, 3), keepdim=True))


class PythonState(Gate):
    found = "state"

    def __init__(self, channels):
        super().__init__(channels)
        self.last = 0.0

    def forward(self, x):
        z = x.mean((2, 3), keepdim=True) + self.last
        self.last = float(x.detach().mean())  # HERE
        return x * self.score(z)


class MixesImages(Gate):
    found = "one-image"

    def forward(self, x):  # HERE
        return x * torch.softmax(self.fc2(self.fc1(x.mean((2, 3), keepdim=True))), 0)


class KeepsItsGate(Gate):
    found = "copy"

    def forward(self, x):
        self.gate = self.score(x.mean((2, 3), keepdim=True))  # HERE
        return x * self.gate


class OnTheCpu(Gate):
    found = "device"

    def forward(self, x):
        weight = torch.linspace(0, 1, x.shape[1], device="cpu").reshape(1, -1, 1, 1)
        return x * self.score(x.mean((2, 3), keepdim=True) + weight)  # HERE


class AlwaysFloat(Gate):
    found = "half-weights fp64"

    def forward(self, x):
        gate = self.score(x.mean((2, 3), keepdim=True))
        return x.float() * gate.float()  # HERE


class Einsum(Gate):
    found = "portable"  # a warning

    def forward(self, x):
        gate = self.score(x.mean((2, 3), keepdim=True))
        return torch.einsum("bchw,bcij->bchw", x, gate)  # HERE


class ViewAs(Gate):
    found = "portable"  # a warning

    def forward(self, x):
        z = x.flatten(2) * self.score(x.mean((2, 3), keepdim=True)).flatten(2)
        return z.view_as(x)  # HERE


class GroupsInBatch(Gate):
    found = "portable"  # a warning

    def forward(self, x):
        b, c, h, w = x.shape
        z = x.reshape(b * 2, c // 2, h, w)  # HERE
        z = z * torch.sigmoid(z.mean((2, 3), keepdim=True))
        return z.reshape(b, c, h, w)


class RootOfZero(Gate):
    found = "constant-map"

    def forward(self, x):
        z = x.square().mean((2, 3), keepdim=True).sqrt()  # HERE
        return x * self.score(z)


class EvenKernel(Gate):
    found = "runs"

    def __init__(self, channels):
        super().__init__(channels)
        self.conv = nn.Conv2d(channels, 1, 4, padding=2)

    def forward(self, x):
        return x * torch.sigmoid(self.conv(x))  # HERE


class FixedSize(Gate):
    found = "odd-sizes"

    def __init__(self, channels):
        super().__init__(channels)
        self.place = nn.Parameter(torch.zeros(1, channels, 16, 16))

    def forward(self, x):
        return x * self.score(x.mean((2, 3), keepdim=True)) + self.place  # HERE


class CutGradient(Gate):
    found = "gradient"

    def forward(self, x):
        return x * self.score(x.detach().mean((2, 3), keepdim=True))  # HERE


class UnusedLayer(Gate):
    found = "parameters"  # a warning

    def __init__(self, channels):
        super().__init__(channels)
        self.extra = nn.Conv2d(channels, channels, 1)  # HERE


class HidesHalf(Gate):
    found = "names"

    def __init__(self, channels):
        super().__init__(channels)
        self.half = channels // 2  # HERE


class TooNarrow(nn.Module):
    found = "widths"

    def __init__(self, channels, reduction=32):  # HERE
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, channels // reduction, 1), nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3), keepdim=True))))


class NeedsMore(nn.Module):
    found = "constructor"

    def __init__(self, channels, heads):  # HERE
        super().__init__()
        self.qkv = nn.Conv2d(channels, heads, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.qkv(x).mean(1, keepdim=True))


class ReadsInsideConv(Gate):
    found = "fuse"

    def __init__(self, channels):
        from ultralytics.nn.modules import Conv

        super().__init__(channels)
        self.cv = Conv(channels, channels, 1)

    def forward(self, x):
        z = self.cv.act(self.cv.conv(x))  # HERE
        return x * self.score(z.mean((2, 3), keepdim=True))


class AttendsInTrainingOnly(Gate):
    found = "parameters"  # a failure: what is exported does not attend

    def forward(self, x):
        if not self.training:  # HERE
            return x * 1
        return x * self.score(x.mean((2, 3), keepdim=True))


class Shrinks(Gate):
    found = "shrinkage"  # a warning

    def forward(self, x):
        return x * self.score(x.mean((2, 3), keepdim=True)) * 0.01  # HERE


class TakesSequences(nn.Module):
    found = "runs"

    def __init__(self, dim):
        super().__init__()
        self.fc = nn.Linear(dim, dim)

    def forward(self, x):
        _, _, _ = x.shape  # HERE
        return x * torch.sigmoid(self.fc(x.mean(1, keepdim=True)))
