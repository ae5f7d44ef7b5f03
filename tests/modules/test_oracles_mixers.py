"""Attention that mixes positions, and what is built on it, against timm, torchvision or its formula, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from oracle import agree, bn, build, conv1, modes, sample, scramble
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from timm.models.volo import OutlookAttention
from torch import nn

from yolo_attn import get_module
from yolo_attn.modules import _local


def silu(x):
    return x / (1 + (-x).exp())


def depthwise(x, layer):
    c = x.shape[1]
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding, dilation=layer.dilation, groups=c)


def like(other, weights, x):
    """Run `other` with weights that are made of ours, so that gradients reach ours."""
    return torch.func.functional_call(other.double(), weights, (x,))


# ---------------------------------------------------------------- timm


def mhsa(m):
    def formula(x):
        other = BottleneckAttn(
            x.shape[1],
            feat_size=tuple(x.shape[2:]),
            num_heads=m.heads,
            dim_head=x.shape[1] // m.heads,
            scale_pos_embed=True,
        )
        weights = {
            "qkv.weight": torch.cat((m.query.weight, m.key.weight, m.value.weight)),
            "pos_embed.height_rel": m.position.rows.weight,
            "pos_embed.width_rel": m.position.columns.weight,
        }
        return like(other, weights, x)

    return formula


def halo(m):
    def formula(x):
        c, heads, size = x.shape[1], m.heads, m.window_size
        other = HaloAttn(c, num_heads=heads, dim_head=c // heads, block_size=size, halo_size=m.halo_size)
        k, v = (w.reshape(heads, c // heads, c, 1, 1) for w in m.kv.weight.chunk(2))
        weights = {
            "q.weight": m.q.weight,
            "kv.weight": torch.cat((k, v), 1).reshape(2 * c, c, 1, 1),  # key and value of each head in turn
            "pos_embed.height_rel": m.position.rows.weight,
            "pos_embed.width_rel": m.position.columns.weight,
        }
        h, w = x.shape[2:]
        return like(other, weights, F.pad(x, (0, -w % size, 0, -h % size)))[:, :, :h, :w]

    return formula


def outlook(m):
    def formula(x):
        other = OutlookAttention(x.shape[1], m.heads)
        names = ("v.weight", "attn.weight", "attn.bias", "proj.weight", "proj.bias")
        weights = {n: m.get_parameter(n) for n in names}
        weights = {n: p.flatten(1) if n.endswith("weight") else p for n, p in weights.items()}
        return like(other, weights, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    return formula


# ---------------------------------------------------------------- formulas


def mhsa_alone(m):
    def formula(x):
        b, c, h, w = x.shape
        q, k, v = (conv1(x, f).reshape(b, m.heads, -1, h * w) for f in (m.query, m.key, m.value))
        a = (torch.einsum("bhdi,bhdj->bhij", q, k) / math.sqrt(c // m.heads)).softmax(-1)
        return torch.einsum("bhij,bhdj->bhdi", a, v).reshape(b, c, h, w)

    return formula


def biformer(m):
    def formula(x):
        b, c, h, w = x.shape
        s, heads = m.windows, m.heads
        q, k, v = conv1(x, m.qkv).chunk(3, 1)
        rows, columns = -(-h // s), -(-w // s)
        places = [
            [(y, z) for y in range(h) for z in range(w) if y // rows == i and z // columns == j]
            for i in range(s)
            for j in range(s)
        ]
        places = [p for p in places if p]

        def read(t, region):
            return torch.stack([t[:, y, z] for y, z in region])  # (n, C)

        out = torch.zeros_like(x)
        for image in range(b):
            qs, ks, vs = ([read(t[image], p) for p in places] for t in (q, k, v))
            affinity = torch.stack([t.mean(0) for t in qs]) @ torch.stack([t.mean(0) for t in ks]).T
            for i, region in enumerate(places):
                near = affinity[i].argsort(descending=True)[: m.topk].tolist()
                keys, values = (torch.cat([t[j] for j in near]) for t in (ks, vs))
                parts = []
                for a, key, value in zip(*(t.chunk(heads, 1) for t in (qs[i], keys, values))):
                    parts.append((a @ key.T / math.sqrt(c)).softmax(1) @ value)
                got = torch.cat(parts, 1)
                mask = torch.zeros(len(region), h, w, dtype=x.dtype)
                for n, (y, z) in enumerate(region):
                    mask[n, y, z] = 1
                one = torch.zeros(b, 1, 1, 1, dtype=x.dtype)
                one[image] = 1
                out = out + one * torch.einsum("nc,nyz->cyz", got, mask)
        return conv1(out + depthwise(v, m.lepe), m.out)

    return formula


def cot(m):
    def formula(x):
        b, c, h, w = x.shape
        key, norm, _ = m.key_embed
        static = bn(F.conv2d(x, key.weight, padding=m.kernel_size // 2, groups=key.groups), norm).relu()
        joint = F.conv2d(torch.cat((x, static), 1), torch.cat((m.embed_x.weight, m.embed_k.weight), 1))
        norm, _, layer, group = m.embed
        z = conv1(bn(joint, norm).relu(), layer)
        planes = group.num_groups
        z = z.reshape(b, planes, -1)
        z = (z - z.mean(2, keepdim=True)) / (z.var(2, keepdim=True, correction=0) + group.eps).sqrt()
        z = z.reshape(b, -1, h, w) * group.weight.view(1, -1, 1, 1) + group.bias.view(1, -1, 1, 1)
        weight = z.reshape(b, 1, planes, m.kernel_size**2, h * w)
        value = bn(conv1(x, m.value_embed[0]), m.value_embed[1])
        near = F.unfold(value, m.kernel_size, padding=m.kernel_size // 2).reshape(b, c // planes, planes, -1, h * w)
        dynamic = silu(bn((near * weight).sum(3).reshape(b, c, h, w), m.norm))
        first, norm, _, last = m.fuse
        score = conv1(bn(conv1((static + dynamic).mean((2, 3), keepdim=True), first), norm).relu(), last)
        share = score.reshape(b, c, 2).softmax(2)
        return dynamic * share[:, :, 0, None, None] + static * share[:, :, 1, None, None]

    return formula


def cot_of_forks(m):
    def formula(x):
        b, c, h, w = x.shape
        key, norm, _ = m.key_embed
        static = bn(F.conv2d(x, key.weight, padding=key.padding, groups=key.groups), norm).relu()
        joint = F.conv2d(torch.cat((static, x), 1), torch.cat((m.embed_k.weight, m.embed_x.weight), 1))
        score = conv1(bn(joint, m.norm).relu(), m.attn).reshape(b, c, m.taps, h * w).mean(2)
        value = bn(conv1(x, m.value_embed[0]), m.value_embed[1]).flatten(2)
        return static + (score.softmax(2) * value).reshape(x.shape)

    return formula


def acmix(m):
    def formula(x):
        b, c, h, w = x.shape
        r, d = m.kernel_size // 2, c // m.heads
        q, k, v = (conv1(x, f) for f in (m.conv1, m.conv2, m.conv3))

        def code(y, z):  # of a position, -1 to 1 from edge to edge
            place = torch.tensor([(2 * z + 1) / w - 1, (2 * y + 1) / h - 1], dtype=x.dtype)
            return m.position.weight @ place

        columns = []
        for y in range(h):
            for z in range(w):
                near = [(i, j) for i in range(y - r, y + r + 1) for j in range(z - r, z + r + 1)]
                near = [(i, j) for i, j in near if 0 <= i < h and 0 <= j < w]
                parts = []
                for a, key, value in zip(*(t.chunk(m.heads, 1) for t in (q, k, v))):
                    a = a[:, :, y, z] / math.sqrt(d)
                    score = torch.stack([(a * (key[:, :, i, j] + code(y, z) - code(i, j))).sum(1) for i, j in near], 1)
                    values = torch.stack([value[:, :, i, j] for i, j in near], 1)
                    parts.append(torch.einsum("bn,bnd->bd", score.softmax(1), values))
                columns.append(torch.cat(parts, 1))
        attention = torch.stack(columns, 2).reshape(x.shape)
        maps = torch.cat((q, k, v), 1).reshape(b, 3 * m.heads, d, h, w)
        mixed = torch.einsum("th,bhdyz->bdtyz", m.fc.weight[:, :, 0, 0], maps)
        parts = [
            F.conv2d(mixed[:, i], m.shift.weight[i * m.heads : (i + 1) * m.heads], padding=1) for i in range(d)
        ]  # one group for each channel of a head
        convolution = torch.cat(parts, 1) + m.shift.bias.view(1, -1, 1, 1)
        return m.alpha.weight * attention + m.beta.weight * convolution

    return formula


def irmb(m):
    def formula(x):
        b, (h, w) = x.shape[0], x.shape[2:]
        s, d = m.window_size, m.channels // m.heads
        z = bn(x, m.norm)
        q, k = conv1(z, m.qk).chunk(2, 1)
        v = conv1(z, m.v).relu()
        q, k, v = (F.pad(t, (0, -w % s, 0, -h % s)) for t in (q, k, v))
        lines = []
        for y in range(0, h, s):
            row = []
            for z in range(0, w, s):
                window = [t[:, :, y : y + s, z : z + s].flatten(2).chunk(m.heads, 1) for t in (q, k, v)]
                parts = [
                    t @ (a.transpose(1, 2) @ e / math.sqrt(d)).softmax(2).transpose(1, 2) for a, e, t in zip(*window)
                ]
                row.append(torch.cat(parts, 1).reshape(b, -1, s, s))
            lines.append(torch.cat(row, 3))
        y = torch.cat(lines, 2)[:, :, :h, :w]
        conv, norm, _ = m.local
        return x + conv1(y + silu(bn(depthwise(y, conv), norm)), m.proj)

    return formula


def msda(m):
    def formula(x):
        h, w = x.shape[2:]
        parts = []
        for part, dilation in zip(
            zip(*(t.chunk(len(m.dilations), 1) for t in conv1(x, m.qkv).chunk(3, 1))), m.dilations
        ):
            for q, k, v in zip(*(t.chunk(m.heads, 1) for t in part)):
                r = dilation * (m.kernel_size // 2)
                k, v = (F.pad(t, (r, r, r, r)) for t in (k, v))
                steps = [(i * dilation, j * dilation) for i in range(m.kernel_size) for j in range(m.kernel_size)]
                score = torch.stack([(q * k[:, :, i : i + h, j : j + w]).sum(1) for i, j in steps]) / math.sqrt(
                    q.shape[1]
                )
                near = torch.stack([v[:, :, i : i + h, j : j + w] for i, j in steps])
                parts.append(torch.einsum("nbhw,nbchw->bchw", score.softmax(0), near))
        return conv1(torch.cat(parts, 1), m.proj)

    return formula


def external(m):
    def formula(x):
        z = conv1(x, m.mk).flatten(2).exp()
        z = z / z.sum(2, keepdim=True)
        z = z / (z.sum(1, keepdim=True) + 1e-9)
        return conv1(z.reshape(x.shape[0], -1, *x.shape[2:]), m.mv)

    return formula


def focused(m):
    def formula(x):
        b, c, h, w = x.shape
        q, k, v = (t.flatten(2).transpose(1, 2) for t in conv1(x, m.qkv).chunk(3, 1))  # (B, H W, C)
        scale = (1 + m.scale.weight.flatten().exp()).log()

        def phi(t):
            t = (t.relu() + 1e-6) / scale
            return t**m.factor * t.norm(dim=2, keepdim=True) / (t**m.factor).norm(dim=2, keepdim=True)

        parts = []
        for a, e, t in zip(*(z.chunk(m.heads, 2) for z in (phi(q), phi(k), v))):
            weight = a @ e.transpose(1, 2)
            parts.append(weight @ t / (weight.sum(2, keepdim=True) + 1e-6 * h * w))
        y = torch.cat(parts, 2).transpose(1, 2).reshape(b, c, h, w)
        return conv1(y + depthwise(v.transpose(1, 2).reshape(b, c, h, w), m.dwc), m.proj)

    return formula


def scsa(m):
    def group(z, norm):  # (B, C, L)
        g = z.reshape(z.shape[0], norm.num_groups, -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True, correction=0) + norm.eps).sqrt()
        return g.reshape(z.shape) * norm.weight[:, None] + norm.bias[:, None]

    def strip(z):
        parts = zip(z.chunk(4, 1), m.strips)
        return torch.cat(
            [F.conv1d(p, f.weight[..., 0], f.bias, padding=f.padding[0], groups=p.shape[1]) for p, f in parts], 1
        )

    def formula(x):
        c, h, w = x.shape[1:]
        rows, columns = group(strip(x.mean(3)), m.norm_h).sigmoid(), group(strip(x.mean(2)), m.norm_w).sigmoid()
        x = torch.einsum("bchw,bch,bcw->bchw", x, rows, columns)
        n = m.window_size
        cells = [x[:, :, i : i + n, j : j + n].mean((2, 3)) for i in range(0, h, n) for j in range(0, w, n)]
        z = group(torch.stack(cells, 2), m.norm)
        q, k, v = (z * f.weight[0, :, :, 0] for f in (m.q, m.k, m.v))
        parts = [
            (a @ e.transpose(1, 2) / math.sqrt(c // m.heads)).softmax(2) @ t
            for a, e, t in zip(*(s.chunk(m.heads, 1) for s in (q, k, v)))
        ]
        return x * torch.cat(parts, 1).mean(2).sigmoid()[..., None, None]

    return formula


def read_between(x, y, z):
    """`x`, (C, H, W), at row y and column z, which are tensors; zero outside."""
    total = 0
    for i in (int(y.floor()), int(y.floor()) + 1):
        for j in (int(z.floor()), int(z.floor()) + 1):
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                total = total + x[:, i, j] * (1 - (y - i).abs()) * (1 - (z - j).abs())
    return total + 0 * x[:, 0, 0]


def dattention(m):
    def formula(x):
        b, c, h, w = x.shape
        q = conv1(x, m.proj_q)
        conv, norm, _, last = m.offset
        groups = []
        for values, query in zip(x.chunk(m.groups, 1), q.chunk(m.groups, 1)):
            z = F.conv2d(query, conv.weight, conv.bias, m.stride, conv.padding, groups=query.shape[1])
            mu, var = z.mean(1, keepdim=True), z.var(1, keepdim=True, correction=0)
            z = (z - mu) / (var + norm.eps).sqrt()
            z = z * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
            z = 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))
            move = conv1(z, last).tanh() * m.factor / 2
            rows, columns = move.shape[2:]
            read = [
                torch.stack(
                    [
                        read_between(
                            values[image],
                            (i + 0.5 + move[image, 0, i, j]) * h / rows - 0.5,
                            (j + 0.5 + move[image, 1, i, j]) * w / columns - 0.5,
                        )
                        for i in range(rows)
                        for j in range(columns)
                    ],
                    1,
                )
                for image in range(b)
            ]
            groups.append(torch.stack(read))
        moved = torch.cat(groups, 1).unsqueeze(3)  # (B, C, points, 1)
        k, v = (conv1(moved, f).squeeze(3) for f in (m.proj_k, m.proj_v))
        parts = [
            t @ (a.transpose(1, 2) @ e / math.sqrt(c // m.heads)).softmax(2).transpose(1, 2)
            for a, e, t in zip(*(s.chunk(m.heads, 1) for s in (q.flatten(2), k, v)))
        ]
        y = torch.cat(parts, 1).reshape(b, c, h, w)
        return conv1(y + depthwise(q, m.position), m.proj_out)

    return formula


def dlka(m):
    def deform(x, f):
        layer = f.offset
        offset = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding, dilation=layer.dilation)
        return torchvision.ops.deform_conv2d(x, offset, f.conv.weight, padding=layer.padding, dilation=layer.dilation)

    return lambda x: x * conv1(deform(deform(x, m.conv0), m.conv_spatial), m.conv1)


def dlka_block(m):
    def formula(x):
        z = conv1(x, m.proj_1)
        z = 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))
        return x + conv1(dlka(m.spatial)(z), m.proj_2)

    return formula


def branch(x, seq):
    first, norm1, _, last, norm2 = seq
    return bn(conv1(bn(conv1(x, first), norm1).relu(), last), norm2)


def scales(m, x):
    return (branch(x, m.near) + branch(x.mean((2, 3), keepdim=True), m.far)).sigmoid()


def mscam(m):
    return lambda x: x * scales(m.scales, x)


FORMULAS = [
    ("MHSA", mhsa_alone, 16, {"position": False, "bias": True}),
    ("MSCAM", mscam, 16, {}),
    ("BiLevelRoutingAttention", biformer, 16, {"windows": 2, "topk": 2, "heads": 4}),
    ("BiLevelRoutingAttention", biformer, 8, {"windows": 3, "topk": 3, "heads": 2, "kernel_size": 5}),
    ("BiLevelRoutingAttention", biformer, 8, {}),  # 7 x 7 regions of 6 x 5 positions: some are empty
    ("CoT", cot, 16, {}),
    ("CoT", cot, 12, {"kernel_size": 5}),
    ("CoTAttention", cot_of_forks, 16, {}),
    ("CoTAttention", cot_of_forks, 12, {"kernel_size": 5}),
    ("ACmix", acmix, 8, {}),
    ("ACmix", acmix, 8, {"kernel_size": 3, "heads": 2}),
    ("iRMB", irmb, 16, {}),
    ("iRMB", irmb, 8, {"window_size": 3, "head_channels": 4, "factor": 2, "kernel_size": 5}),
    ("MSDA", msda, 16, {}),
    ("MSDA", msda, 16, {"dilations": (1, 3), "heads": 4}),
    ("ExternalAttention", external, 8, {"memory": 5}),
    ("FocusedLinearAttention", focused, 16, {}),
    ("FocusedLinearAttention", focused, 8, {"heads": 2, "factor": 2, "kernel_size": 3}),
    ("SCSA", scsa, 16, {"heads": 4, "window_size": 4}),
    ("SCSA", scsa, 32, {"window_size": 2}),
    ("DAttention", dattention, 16, {}),
    ("DAttention", dattention, 8, {"heads": 2, "groups": 2, "stride": 2, "factor": 3}),
    ("DeformableLKA", dlka, 4, {}),
    ("DeformableLKAAttention", dlka_block, 4, {}),
]
TIMM = [
    ("MHSA", mhsa, 16, {"height": 6, "width": 5}),
    ("Halo", halo, 16, {"window_size": 3, "halo_size": 2, "heads": 2}),
    ("Halo", halo, 16, {"window_size": 4, "halo_size": 1}),
    ("Outlook", outlook, 16, {"heads": 4}),
    ("Outlook", outlook, 16, {}),
]


@modes
@pytest.mark.parametrize(
    ("name", "formula", "channels", "options"), [*TIMM, *FORMULAS], ids=lambda v: v if isinstance(v, str) else None
)
def test_formula(name, formula, channels, options, train):
    m = build(name, channels, train, **options)
    agree(m, formula(m), sample(channels))


def test_positions_beyond_the_table_are_the_farthest():
    """MHSA on a map larger than its encodings reach."""
    m, large = build("MHSA", 8, height=3, width=2), build("MHSA", 8, height=6, width=5)
    for mine, theirs in ((m.position.rows, large.position.rows), (m.position.columns, large.position.columns)):
        index = torch.arange(theirs.num_embeddings) - theirs.num_embeddings // 2
        most = mine.num_embeddings // 2
        theirs.weight.data = mine.weight[index.clamp(-most, most) + most].detach()
    x = sample(8)
    torch.testing.assert_close(m(x), large(x), rtol=1e-12, atol=1e-12)


def test_reading_between_positions_is_the_same_both_ways():
    """What stands in for `grid_sample` where its backward is refused; values and gradients, inside and outside."""
    x = sample(3, (5, 4), 2)
    generator = torch.Generator().manual_seed(0)
    places = [
        ((torch.rand(2, 7, 6, generator=generator, dtype=torch.float64) * 1.6 - 0.3) * n - 0.5).requires_grad_()
        for n in (5, 4)
    ]
    results = []
    for read in (_local.sample, _local.bilinear):
        y = read(x, *places)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        results.append([y, *torch.autograd.grad((y * weight).sum(), [x, *places])])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------- blocks and fusion


def unit(x, m):
    """The hosts' convolution unit of kernel 1."""
    return silu(bn(conv1(x, m.conv), m.bn))


def c3_with(inner):
    def make(m):
        def formula(x):
            y = unit(x, m.cv1)
            for block in m.m:
                y = y + inner(block.cv2)(unit(y, block.cv1))
            return unit(torch.cat((y, unit(x, m.cv2)), 1), m.cv3)

        return formula

    return make


def fields(x, seq, k):
    conv, norm, _ = seq
    c = x.shape[1]
    z = bn(F.conv2d(x, conv.weight, stride=conv.stride, padding=k // 2, groups=c), norm).relu()
    return z.reshape(x.shape[0], c, k, k, *z.shape[2:])


def apart(z):
    """(B, C, k, k, H, W) -> (B, C, H k, W k)."""
    k, _, h, w = z.shape[2:]
    return torch.stack(
        [torch.stack([z[:, :, i % k, j % k, i // k, j // k] for j in range(w * k)], 2) for i in range(h * k)], 2
    )


def last(z, m):
    k = m.conv.conv.kernel_size[0]
    z = bn(F.conv2d(z, m.conv.conv.weight, stride=k), m.conv.bn)
    return silu(z)


def rfa(m):
    def formula(x):
        k, c = m.k, x.shape[1]
        pool, layer = m.get_weight
        near = F.unfold(x, k, padding=k // 2, stride=pool.stride).reshape(x.shape[0], c, k * k, -1).mean(2)
        weight = (near.unsqueeze(2) * layer.weight.reshape(1, c, k * k, 1)).softmax(2)
        z = fields(x, m.generate, k)
        return last(apart(z * weight.reshape(z.shape)), m)

    return formula


def rfcbam(m):
    def formula(x):
        gate = conv1(conv1(x.mean((2, 3), keepdim=True), m.fc1).relu(), m.fc2).sigmoid()
        z = apart(fields(x, m.generate, m.k))
        z = z * gate
        pooled = torch.stack((z.max(1).values, z.mean(1)), 1)
        return last(z * F.conv2d(pooled, m.get_weight.weight, padding=1).sigmoid(), m)

    return formula


def coordinates(x, m):
    """Coordinate attention, 2103.02907, of a CoordAtt `m`."""
    h = x.shape[2]
    z = bn(conv1(torch.cat((x.mean(3), x.mean(2)), 2).unsqueeze(3), m.conv1), m.bn1)
    z = z * (z + 3).clamp(0, 6) / 6
    rows, columns = conv1(z[:, :, :h], m.conv_h).sigmoid(), conv1(z[:, :, h:], m.conv_w).sigmoid()
    return x * rows * columns.transpose(2, 3)


def rfca(m):
    return lambda x: last(coordinates(apart(fields(x, m.generate, m.k)), m.attn), m)


def caconv(m):
    def formula(x):
        z = F.conv2d(coordinates(x, m.attn), m.conv.conv.weight, padding=m.conv.conv.padding)
        return silu(bn(z, m.conv.bn))

    return formula


BLOCKS = [
    ("RFCAConv", rfca, (8, 8), {}),
    ("CAConv", caconv, (8, 8), {}),
    ("BoT3", c3_with(mhsa_alone), (16, 16), {"n": 2}),
    ("BoT3", c3_with(mhsa), (16, 16), {"position": True, "bias": False, "w": 5, "h": 6}),
    ("CoT3", c3_with(cot_of_forks), (16, 16), {"n": 2}),
    ("CoT3", c3_with(cot), (16, 16), {"form": "paper"}),
    ("RFAConv", rfa, (8, 8), {}),
    ("RFAConv", rfa, (4, 4), {"k": 5}),
    ("RFCBAMConv", rfcbam, (8, 8), {"width": 4}),
]


def doubled(cls, widths, train, **options):
    torch.manual_seed(0)
    m = cls(*widths, **options).double()
    scramble(m)
    return m.train(train)


@modes
@pytest.mark.parametrize(
    ("name", "formula", "widths", "options"), BLOCKS, ids=lambda v: v if isinstance(v, str) else None
)
def test_block(name, formula, widths, options, train):
    m = doubled(get_module(name), widths, train, **options)
    agree(m, formula(m), sample(widths[0]))


@pytest.mark.parametrize(("name", "formula"), [("RFAConv", rfa), ("RFCBAMConv", rfcbam), ("RFCAConv", rfca)])
def test_strided_fields(name, formula):
    m = doubled(get_module(name), (8, 12), False, s=2)
    x = sample(8, (7, 6))
    y = m(x)
    assert y.shape == (3, 12, 4, 3)
    torch.testing.assert_close(y, formula(m)(x), rtol=1e-10, atol=1e-10)


class Twice(nn.Module):
    """A fusion of a map and what is made of it."""

    def __init__(self, fuse):
        super().__init__()
        self.fuse = fuse

    def forward(self, x):
        return self.fuse([x, other(x)])


def other(x):
    return 0.5 * x.flip(3) + x.roll(1, 1)


def aff(m):
    def formula(x):
        y = other(x)
        w = scales(m.scales, x + y)
        return w * x + (1 - w) * y

    return formula


def iaff(m):
    def formula(x):
        y = other(x)
        w = scales(m.first, x + y)
        w = scales(m.second, w * x + (1 - w) * y)
        return w * x + (1 - w) * y

    return formula


@modes
@pytest.mark.parametrize(("name", "formula"), [("AFF", aff), ("iAFF", iaff)])
def test_fusion(name, formula, train):
    m = Twice(doubled(get_module(name), ([16, 16],), train))
    agree(m, formula(m.fuse), sample(16))


@pytest.mark.parametrize("name", ["AFF", "iAFF"])
def test_fusion_takes_two_equal_inputs(name):
    for wrong, error in ((16, TypeError), ([16], ValueError), ([16, 8], ValueError), ([16, 16, 16], ValueError)):
        with pytest.raises(error, match="two inputs"):
            get_module(name)(wrong)


def test_acmix_starts_as_shifted_sums():
    """The convolution path of a fresh module moves each of its nine maps to its place and sums them."""
    m = get_module("ACmix")(8).double()
    z = sample(18, (5, 4))
    y = m.shift(z.detach())
    d = m.head_channels
    padded = F.pad(z.reshape(3, d, 9, 5, 4), (1, 1, 1, 1))
    want = sum(padded[:, :, t, t // 3 : t // 3 + 5, t % 3 : t % 3 + 4] for t in range(9))
    torch.testing.assert_close(y, want.repeat_interleave(m.heads, 1), rtol=1e-12, atol=1e-12)
