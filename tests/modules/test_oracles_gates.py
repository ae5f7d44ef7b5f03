"""Gates and convolutional attention of the second collection against their formulas, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracle import agree, bn, build, conv1, modes, sample


def mlp(m, z):
    return conv1(conv1(z, m.fc1).relu(), m.fc2)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + (-x).exp())


def depthwise(x, layer):
    """A depthwise convolution, one channel at a time."""
    pad = [v for p in reversed(layer.padding) for v in (p, p)]
    x = F.pad(x, pad)
    parts = [
        F.conv2d(x[:, c : c + 1], layer.weight[c : c + 1], layer.bias[c : c + 1], dilation=layer.dilation)
        for c in range(x.shape[1])
    ]
    return torch.cat(parts, 1)


def separable(x, block, act):
    x = x + bn(act(depthwise(x, block.depthwise)), block.norm1)
    return bn(act(conv1(x, block.pointwise)), block.norm2)


def seam(m):
    def formula(x):
        z = x
        for block in m.mix:
            z = separable(z, block, gelu)
        return x * mlp(m.excite, z.mean((2, 3), keepdim=True)).sigmoid().exp()

    return formula


def multi_seam(m):
    def formula(x):
        means = [x.mean((2, 3), keepdim=True)]
        for branch in m.branches:
            p = branch[0].kernel_size[0]
            h, w = (-(-n // p) for n in x.shape[2:])  # patches, the last ones hanging over
            room = F.pad(x, (p // 2, w * p, p // 2, h * p))
            z = torch.stack(
                [
                    torch.einsum(
                        "bcij,ocij->bo", room[:, :, i * p : (i + 1) * p, j * p : (j + 1) * p], branch[0].weight
                    )
                    for i in range(h)
                    for j in range(w)
                ],
                2,
            ).reshape(x.shape[0], -1, h, w)
            z = bn(silu(z + branch[0].bias.view(1, -1, 1, 1)), branch[2])
            for block in list(branch)[3:]:
                z = separable(z, block, silu)
            means.append(z.mean((2, 3), keepdim=True))
        return x * mlp(m.excite, sum(means) / len(means)).sigmoid().exp()

    return formula


def msca(m):
    def formula(x):
        z = total = depthwise(x, m.conv0)
        for flat, tall in m.strips:
            total = total + depthwise(depthwise(z, flat), tall)
        return x * conv1(total, m.conv1)

    return formula


def senet_v2(m):
    def formula(x):
        z = x.mean((2, 3), keepdim=True)
        parts = m.fc1.weight.chunk(4)  # four layers side by side
        hidden = torch.cat([torch.einsum("oc,bchw->bohw", w[:, :, 0, 0], z).relu() for w in parts], 1)
        return x * conv1(hidden, m.fc2).sigmoid()

    return formula


def lsk(m):
    def formula(x):
        first = depthwise(x, m.conv0)
        second = depthwise(first, m.conv_spatial)
        u = [conv1(first, m.conv1), conv1(second, m.conv2)]
        both = torch.cat(u, 1)
        pooled = torch.stack((both.mean(1), both.max(1).values), 1)
        masks = F.conv2d(pooled, m.conv_squeeze.weight, m.conv_squeeze.bias, padding=3).sigmoid()
        s = conv1(sum(u[i] * masks[:, i].unsqueeze(1) for i in (0, 1)), m.conv)
        return x * s

    return formula


def strip_pooling(m):
    def formula(x):
        rows = F.conv1d(x.mean(3), m.conv_h.weight[..., 0], padding=1).unsqueeze(3)
        columns = F.conv1d(x.mean(2), m.conv_w.weight[:, :, 0], padding=1).unsqueeze(2)
        z = (bn(rows, m.norm_h) + bn(columns, m.norm_w)).relu()
        return x * conv1(z, m.conv).sigmoid()

    return formula


def epsa(m):
    def formula(x):
        parts = [F.conv2d(x, f.weight, padding=f.kernel_size[0] // 2, groups=f.groups) for f in m.convs]
        z = torch.stack([mlp(m, p.mean((2, 3), keepdim=True)).sigmoid() for p in parts])
        z = z.exp() / z.exp().sum(0)
        return torch.cat([p * w for p, w in zip(parts, z)], 1)

    return formula


def srm(m):
    def formula(x):
        mu = x.mean((2, 3))
        sigma = ((x - mu[..., None, None]) ** 2).mean((2, 3)).add(1e-5).sqrt()
        w = m.cfc.weight[:, 0, 0]
        z = (w[:, 0] * mu + w[:, 1] * sigma)[..., None, None]
        return x * bn(z, m.norm).sigmoid()

    return formula


def fca(m):
    rank = [
        (0, 0),
        (0, 1),
        (6, 0),
        (0, 5),
        (0, 2),
        (1, 0),
        (1, 2),
        (4, 0),
        (5, 0),
        (1, 6),
        (3, 0),
        (0, 4),
        (0, 6),
        (0, 3),
    ]
    rank += [(3, 5), (2, 2)]

    def wave(u, i):
        return math.cos(math.pi * u * (i + 0.5) / 7) * math.sqrt((1 if u == 0 else 2) / 7)

    def formula(x):
        cells = F.adaptive_avg_pool2d(x, 7)
        z = []
        for c in range(x.shape[1]):
            u, v = rank[c * 16 // x.shape[1]]
            basis = torch.tensor([[wave(u, i) * wave(v, j) for j in range(7)] for i in range(7)], dtype=torch.float32)
            z.append((cells[:, c] * basis.double()).sum((1, 2)))
        return x * mlp(m, torch.stack(z, 1)[..., None, None]).sigmoid()

    return formula


FORMULAS = [
    ("SEAM", seam, 16, {"reduction": 2}),
    ("SEAM", seam, 16, {"depth": 2, "reduction": 4}),
    ("MultiSEAM", multi_seam, 8, {"reduction": 4}),
    ("MultiSEAM", multi_seam, 8, {"depth": 2, "patch_sizes": (3, 5), "reduction": 2}),
    ("MSCA", msca, 8, {}),
    ("SENetV2", senet_v2, 32, {}),
    ("SENetV2", senet_v2, 32, {"reduction": 8}),
    ("LSK", lsk, 8, {}),
    ("StripPooling", strip_pooling, 8, {}),
    ("EPSA", epsa, 64, {}),
    ("SRM", srm, 8, {}),
    ("FcaNet", fca, 32, {}),
    ("FcaNet", fca, 8, {"reduction": 2}),
]


@modes
@pytest.mark.parametrize(
    ("name", "formula", "channels", "options"), FORMULAS, ids=lambda v: v if isinstance(v, str) else None
)
def test_formula(name, formula, channels, options, train):
    m = build(name, channels, train, **options)
    agree(m, formula(m), sample(channels))


@pytest.mark.parametrize(
    ("name", "channels", "count"),
    [
        ("SENetV2", 256, 2 * 4 * 8 * 256),  # 4 layers C -> C / 32, one back
        ("SRM", 256, 4 * 256),  # two weights a channel, batch norm
        ("FcaNet", 256, 2 * 256 * 16),
        ("SEAM", 256, (9 + 1 + 2) * 256 + 256 * 256 + 3 * 256 + 2 * 256 * 16),
        ("LSK", 256, 256 * (25 + 49 + 2) + 2 * (256 + 1) * 128 + 2 * 2 * 49 + 2 + 128 * 256 + 256),
    ],
)
def test_parameter_counts_are_the_papers(name, channels, count):
    assert sum(p.numel() for p in build(name, channels).parameters()) == count
