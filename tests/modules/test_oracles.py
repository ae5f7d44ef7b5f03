"""Every module against timm, torchvision or its formula written out here: output and all gradients, in float64."""

from __future__ import annotations

import math

import pytest
import timm.layers as tl
import torch
import torch.nn.functional as F
import torchvision
from oracle import agree, bn, build, conv1, ln, modes, norm_names, same, sample, twin
from test_oracles_gates import FORMULAS as GATES
from test_oracles_mixers import FORMULAS as MIXERS
from test_oracles_mixers import TIMM
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn, EfficientLocalAttn
from torch import nn

from yolo_attn import get_module, list_modules
from yolo_attn.registry.registry import get_entry

# ---------------------------------------------------------------- against timm and torchvision


@pytest.mark.parametrize("channels", [16, 64, 80])
def test_se_is_timms_and_torchvisions(channels):
    m = build("SEAttention", channels)
    twin(
        m,
        tl.SEModule(channels, rd_ratio=1 / 16, rd_divisor=1, bias=False),
        same("fc1.weight", "fc2.weight"),
        sample(channels),
    )
    m = build("SEAttention", channels, bias=True)
    names = same("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    twin(m, torchvision.ops.SqueezeExcitation(channels, channels // 16), names, sample(channels))


def test_se_hard_gate_and_max_squeeze_are_the_formula():
    m = build("SEAttention", gate="hard_sigmoid", squeeze="max")

    def formula(x):
        z = conv1(conv1(x.flatten(2).max(-1).values[..., None, None], m.fc1).relu(), m.fc2)
        return x * ((z + 3).clamp(0, 6) / 6)

    agree(m, formula, sample(), atol=1e-6)  # torch's derivative of the hard sigmoid is 1/6 in single precision


@pytest.mark.parametrize("channels", [8, 64, 256])
def test_eca_is_timms(channels):
    m = build("ECA", channels)
    twin(m, tl.EcaModule(channels), same("conv.weight"), sample(channels))


@modes
def test_cbam_is_timms(train):
    m = build("CBAM", 32, train, norm=True)
    names = {
        "channel.fc1.weight": "fc1.weight",
        "channel.fc2.weight": "fc2.weight",
        "spatial.conv.conv.weight": "conv.weight",
        **norm_names("spatial.conv.bn", "norm"),
    }
    twin(m, CbamModule(32), names, sample(32))


def test_cbam_with_bias_is_timms():
    m = build("CBAM", 32, norm=True, bias=True)
    names = {
        **{f"channel.{k}": k for k in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")},
        "spatial.conv.conv.weight": "conv.weight",
        **norm_names("spatial.conv.bn", "norm"),
    }
    twin(m, CbamModule(32, mlp_bias=True), names, sample(32))


def test_cbam_is_the_formula():
    m = build("CBAM", 32)

    def formula(x):
        def mlp(z):
            return conv1(conv1(z, m.fc1).relu(), m.fc2)

        x = x * (mlp(x.mean((2, 3), keepdim=True)) + mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()
        return x * F.conv2d(torch.stack((x.mean(1), x.max(1).values), 1), m.conv.weight, padding=3).sigmoid()

    agree(m, formula, sample(32))


@modes
@pytest.mark.parametrize("bias", [True, False])
def test_coordatt_is_timms(train, bias):
    m = build("CoordAtt", 32, train, bias=bias)
    convs = [f"{n}.{k}" for n in ("conv1", "conv_h", "conv_w") for k in ("weight", "bias")[: 1 + bias]]
    twin(m, CoordAttn(32, rd_channels=8, bias=bias), {**same(*convs), **norm_names("bn1", "bn1")}, sample(32))


@pytest.mark.parametrize("fuse", ["add", "scale"])
def test_gc_is_timms(fuse):
    m = build("GC", 64, fuse=fuse)
    m.norm.eps = 1e-6  # timm's; torch's default, 1e-5, is the authors'
    other = tl.GlobalContext(64, fuse_add=fuse == "add", fuse_scale=fuse == "scale", rd_ratio=1 / 16)
    mlp = f"mlp_{fuse}"
    names = {"conv_attn.weight": "attn.weight", "conv_attn.bias": "attn.bias"}
    for theirs, ours in (("fc1", "fc1"), ("norm", "norm"), ("fc2", "fc2")):
        names |= {f"{mlp}.{theirs}.{k}": f"{ours}.{k}" for k in ("weight", "bias")}
    twin(m, other, names, sample(64))


@pytest.mark.parametrize("gate", ["hard_sigmoid", "sigmoid"])
def test_ese_is_timms(gate):
    m = build("eSE", gate=gate)
    other = tl.EffectiveSEModule(16, gate_layer="hard_sigmoid" if gate == "hard_sigmoid" else "sigmoid")
    twin(m, other, same("fc.weight", "fc.bias"), sample())


@pytest.mark.parametrize("extent", [0, 2, 6])
def test_ge_without_parameters_is_timms(extent):
    m = build("GE", form="theta-", extent=extent)
    twin(m, tl.GatherExcite(16, extent=extent, use_mlp=False), {}, sample(size=(11, 9)))


@modes
def test_ela_is_timms(train):
    m = build("ELA", 32, train)
    other = EfficientLocalAttn(32, act_layer=nn.Identity, norm_layer=lambda c, **_: nn.GroupNorm(16, c))
    names = same(
        *(f"{n}.{k}" for n in ("norm_h", "norm_w") for k in ("weight", "bias")), "conv_h.weight", "conv_w.weight"
    )
    twin(m, other, names, sample(32))


@modes
def test_sk_is_timms(train):
    m = build("SK", 32, train, groups=4)
    names = {**same("attn.fc_reduce.weight"), "attn.fc_reduce.weight": "fc_reduce.weight"}
    names |= {"attn.fc_select.weight": "fc_select.weight", **norm_names("attn.bn", "bn")}
    for k in (0, 1):
        names |= {f"paths.{k}.conv.weight": f"paths.{k}.0.weight", **norm_names(f"paths.{k}.bn", f"paths.{k}.1")}
    other = tl.SelectiveKernel(32, kernel_size=[3, 5], split_input=False, groups=4, rd_channels=32)
    twin(m, other, names, sample(32, (7, 6)))


@modes
def test_non_local_is_timms(train):
    m = build("NonLocal", train=train)
    names = norm_names("norm", "norm")
    for theirs, ours in (("t", "theta"), ("p", "phi"), ("g", "g"), ("z", "out")):
        names |= {f"{theirs}.{k}": f"{ours}.{k}" for k in ("weight", "bias")}
    twin(m, tl.NonLocalAttn(16, use_scale=False, rd_ratio=1 / 2), names, sample())


# ---------------------------------------------------------------- against the formula


def bam(m):
    def formula(x):
        c1, c2, c_norm = m.channel[0], m.channel[2], m.channel[3]
        s1, s2, s3, s4, s_norm = (m.spatial[k] for k in (0, 2, 4, 6, 7))
        channel = bn(conv1(conv1(x.mean((2, 3), keepdim=True), c1).relu(), c2), c_norm)
        z = conv1(x, s1).relu()
        for s in (s2, s3):
            z = F.conv2d(z, s.weight, s.bias, padding=4, dilation=4).relu()
        return x + x * (channel + bn(conv1(z, s4), s_norm)).sigmoid()

    return formula


def simam(m):
    def formula(x):
        d = (x - x.mean((2, 3), keepdim=True)) ** 2
        v = d.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        return x * torch.sigmoid(d / (4 * (v + 1e-4)) + 0.5)

    return formula


def shuffle(m):
    def formula(x):
        out, half = [], m.channel.weight.shape[1]
        for group in x.chunk(m.groups, 1):
            a, b = group[:, :half], group[:, half:]
            z = a.mean((2, 3), keepdim=True)
            a = a * torch.sigmoid(m.channel.weight * z + m.channel.bias)
            z = (b - b.mean((2, 3), keepdim=True)) / (b.var((2, 3), keepdim=True, correction=0) + m.norm.eps).sqrt()
            z = z * m.norm.weight.view(1, -1, 1, 1) + m.norm.bias.view(1, -1, 1, 1)
            out += [a, b * torch.sigmoid(m.spatial.weight * z + m.spatial.bias)]
        y = torch.cat(out, 1)
        c = x.shape[1]
        return y[:, [k // 2 + (k % 2) * c // 2 for k in range(c)]]

    return formula


def triplet(m):
    def branch(x, seq):  # attends to the last two axes
        z = torch.stack((x.max(1).values, x.mean(1)), 1)
        return x * torch.sigmoid(bn(F.conv2d(z, seq[0].weight, padding=3), seq[1]))

    def formula(x):
        cw = branch(x.permute(0, 2, 1, 3), m.cw).permute(0, 2, 1, 3)
        hc = branch(x.permute(0, 3, 2, 1), m.hc).permute(0, 3, 2, 1)
        return (cw + hc + branch(x, m.hw)) / 3

    return formula


def ema(m):
    def formula(x):
        b, c, h, w = x.shape
        g = x.reshape(b * m.groups, -1, h, w)
        z = conv1(torch.cat((g.mean(3), g.mean(2)), 2).unsqueeze(-1), m.conv1x1).squeeze(-1).sigmoid()
        y1 = torch.einsum("bchw,bch,bcw->bchw", g, z[..., :h], z[..., h:])
        y1 = (y1 - y1.mean((2, 3), keepdim=True)) / (y1.var((2, 3), keepdim=True, correction=0) + m.gn.eps).sqrt()
        y1 = y1 * m.gn.weight.view(1, -1, 1, 1) + m.gn.bias.view(1, -1, 1, 1)
        y3 = F.conv2d(g, m.conv3x3.weight, m.conv3x3.bias, padding=1)
        score = torch.einsum("bc,bchw->bhw", y1.mean((2, 3)).softmax(-1), y3)
        score = score + torch.einsum("bc,bchw->bhw", y3.mean((2, 3)).softmax(-1), y1)
        return (g * score.sigmoid().unsqueeze(1)).reshape(b, c, h, w)

    return formula


def gam(m):
    def formula(x):
        a, b = m.channel[0], m.channel[2]
        z = F.linear(F.linear(x.permute(0, 2, 3, 1), a.weight[:, :, 0, 0], a.bias).relu(), b.weight[:, :, 0, 0], b.bias)
        x = x * z.permute(0, 3, 1, 2).sigmoid()
        s = m.spatial
        g = s[0].groups
        z = bn(F.conv2d(x, s[0].weight, s[0].bias, padding=3, groups=g), s[1]).relu()
        z = torch.cat([z[:, k :: z.shape[1] // g] for k in range(z.shape[1] // g)], 1)
        return x * bn(F.conv2d(z, s[4].weight, s[4].bias, padding=3, groups=g), s[5]).sigmoid()

    return formula


def nam(m):
    def formula(x):
        gamma = m.norm.weight.abs()
        return x * torch.sigmoid((gamma / gamma.sum()).view(1, -1, 1, 1) * bn(x, m.norm))

    return formula


def gct(m):
    def formula(x):
        alpha, gamma, beta = m.embed.weight.flatten(), m.tune.weight.flatten(), m.tune.bias.flatten()
        s = alpha * (torch.einsum("bchw,bchw->bc", x, x) + 1e-5) ** 0.5
        s = math.sqrt(x.shape[1]) * s / (s.pow(2).sum(1, keepdim=True) + x.shape[1] * 1e-5) ** 0.5
        return torch.einsum("bchw,bc->bchw", x, 1 + torch.tanh(gamma * s + beta))

    return formula


def sge(m):
    def formula(x):
        out = []
        for k, g in enumerate(x.chunk(m.groups, 1)):
            t = torch.einsum("bchw,bc->bhw", g, g.mean((2, 3)))
            t = (t - t.mean((1, 2), keepdim=True)) / (t.var((1, 2), keepdim=True, correction=0) + 1e-5).sqrt()
            t = m.affine.weight[0, k] * t + m.affine.bias[0, k]
            out.append(g * t.sigmoid().unsqueeze(1))
        return torch.cat(out, 1)

    return formula


def ge(m):
    def formula(x):
        z = x
        for k in range(0, len(m.gather), 3):
            z = bn(F.conv2d(z, m.gather[k].weight, stride=2, padding=1, groups=x.shape[1]), m.gather[k + 1])
            z = z.relu() if k + 3 < len(m.gather) else z
        if m.mlp is not None:
            z = conv1(conv1(z, m.mlp[0]).relu(), m.mlp[2])
        rows = torch.arange(x.shape[2]) * z.shape[2] // x.shape[2]
        cols = torch.arange(x.shape[3]) * z.shape[3] // x.shape[3]
        return x * z[:, :, rows][:, :, :, cols].sigmoid()

    return formula


def lska(m):
    def full(weight, dilation):  # a dilated kernel with its zeros
        k = weight.shape[-1]
        big = weight.new_zeros(*weight.shape[:-1], dilation * (k - 1) + 1)
        index = torch.arange(k) * dilation
        return big.index_copy(-1, index, weight)

    def formula(x):
        d, z = m.conv_spatial_h.dilation[0], x
        for layer, dilation in ((m.conv0h, 1), (m.conv0v, 1), (m.conv_spatial_h, d), (m.conv_spatial_v, d)):
            upright = layer.weight.shape[2] > 1
            w = full(layer.weight.transpose(2, 3) if upright else layer.weight, dilation)
            z = z.transpose(2, 3) if upright else z
            z = F.conv2d(F.pad(z, (w.shape[-1] // 2,) * 2), w, layer.bias, groups=x.shape[1])
            z = z.transpose(2, 3) if upright else z
        return x * conv1(z, m.conv1)

    return formula


def polarized_channel(m, x):
    q = conv1(x, m.channel.query).flatten(1).softmax(1)
    z = torch.einsum("bkp,bp->bk", conv1(x, m.channel.value).flatten(2), q)
    return x * ln(conv1(z[..., None, None], m.channel.out), m.channel.norm).sigmoid()


def polarized_spatial(m, x):
    q = conv1(x, m.spatial.query).mean((2, 3)).softmax(1)
    return x * torch.einsum("bk,bkhw->bhw", q, conv1(x, m.spatial.value)).sigmoid().unsqueeze(1)


def parallel(m):
    return lambda x: polarized_channel(m, x) + polarized_spatial(m, x)


def sequential(m):
    return lambda x: polarized_spatial(m, polarized_channel(m, x))


def double(m):
    def formula(x):
        a, b, v = conv1(x, m.a).flatten(2), conv1(x, m.b).flatten(2), conv1(x, m.v).flatten(2)
        g = torch.einsum("bmp,bnp->bmn", a, b.softmax(2))
        z = torch.einsum("bmn,bnp->bmp", g, v.softmax(1)).reshape(x.shape[0], -1, *x.shape[2:])
        return x + conv1(z, m.out)

    return formula


def criss_cross(m):
    def once(x):
        q, k, v = conv1(x, m.query), conv1(x, m.key), conv1(x, m.value)
        h, w = x.shape[2:]
        rows = []
        for i in range(h):
            for j in range(w):
                keys = torch.cat((k[:, :, i], k[:, :, :i, j], k[:, :, i + 1 :, j]), 2)  # H + W - 1 of them
                values = torch.cat((v[:, :, i], v[:, :, :i, j], v[:, :, i + 1 :, j]), 2)
                a = torch.einsum("bc,bcn->bn", q[:, :, i, j], keys).softmax(1)
                rows.append(torch.einsum("bn,bcn->bc", a, values))
        return x + m.gamma.weight * torch.stack(rows, 2).reshape(x.shape)

    return lambda x: once(once(x))


def parnet(m):
    def formula(x):
        one = bn(conv1(x, m.conv1x1[0]), m.conv1x1[1])
        three = bn(F.conv2d(x, m.conv3x3[0].weight, padding=1), m.conv3x3[1])
        y = one + three + x * conv1(x.mean((2, 3), keepdim=True), m.fc).sigmoid()
        return y * y.sigmoid()

    return formula


def s2(m):
    def shifted(x, moves):
        c, h, w = x.shape[1:]
        out = x.clone()
        for k, (dh, dw) in enumerate(moves):  # out[i, j] = x[i - dh, j - dw], border kept
            rows, cols = (torch.arange(h) - dh).clamp(0, h - 1), (torch.arange(w) - dw).clamp(0, w - 1)
            part = slice(k * (c // 4), (k + 1) * (c // 4) if k < 3 else c)
            out[:, part] = x[:, part][:, :, rows][:, :, :, cols]
        return out

    def formula(x):
        c = x.shape[1]
        z = conv1(x, m.mlp1)
        right, left, down, up = (0, 1), (0, -1), (1, 0), (-1, 0)
        parts = [
            shifted(z[:, :c], (right, left, down, up)),
            shifted(z[:, c : 2 * c], (down, up, right, left)),
            z[:, 2 * c :],
        ]
        a = sum(parts).sum((2, 3)) @ m.fc1.weight.T
        a = (0.5 * a * (1 + torch.erf(a / math.sqrt(2)))) @ m.fc2.weight.T
        a = a.reshape(-1, 3, c).softmax(1)
        return conv1(sum(p * a[:, k, :, None, None] for k, p in enumerate(parts)), m.mlp2)

    return formula


def danet(m):
    def formula(x):
        q, k, v = (conv1(x, f).flatten(2) for f in (m.query, m.key, m.value))
        s = torch.einsum("bci,bcj->bij", q, k).softmax(2)
        position = m.alpha.weight * torch.einsum("bij,bcj->bci", s, v).reshape(x.shape) + x
        z = x.flatten(2)
        s = torch.einsum("bip,bjp->bij", z, z).softmax(2)
        return position + m.beta.weight * torch.einsum("bij,bjp->bip", s, z).reshape(x.shape) + x

    return formula


def ela(m):
    def strip(z, conv, norm):  # (B, C, L)
        z = F.conv1d(z, conv.weight.flatten(2), padding=3, groups=z.shape[1])
        g = z.reshape(z.shape[0], norm.num_groups, -1)
        g = (g - g.mean(-1, keepdim=True)) / (g.var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
        return (g.reshape(z.shape) * norm.weight[:, None] + norm.bias[:, None]).sigmoid()

    def formula(x):
        a_h, a_w = strip(x.mean(3), m.conv_h, m.norm_h), strip(x.mean(2), m.conv_w, m.norm_w)
        return torch.einsum("bchw,bch,bcw->bchw", x, a_h, a_w)

    return formula


def se_var(m):
    def formula(x):
        z = x.mean((2, 3))
        name = type(m).__name__
        score = {
            "SEVar1": lambda: z,
            "SEVar2": lambda: z * m.weight.flatten(),
            "SEVar3": lambda: z @ m.fc.weight[:, :, 0, 0].T,
        }
        return x * score[name]().sigmoid()[..., None, None]

    return formula


def scse(m):
    def formula(x):
        z = conv1(conv1(x.mean((2, 3), keepdim=True), m.fc1).relu(), m.fc2)
        return x * z.sigmoid() + x * torch.einsum("bchw,c->bhw", x, m.conv.weight.flatten()).sigmoid().unsqueeze(1)

    return formula


def lka(m):
    def formula(x):
        c, (k, d) = x.shape[1], (m.conv_spatial.kernel_size[0], m.conv_spatial.dilation[0])
        far = x.new_zeros(c, 1, d * (k - 1) + 1, d * (k - 1) + 1)  # the dilated kernel with its zeros
        far[:, :, ::d, ::d] = m.conv_spatial.weight
        z = F.conv2d(x, m.conv0.weight, m.conv0.bias, padding=m.conv0.kernel_size[0] // 2, groups=c)
        z = F.conv2d(z, far, m.conv_spatial.bias, padding=far.shape[-1] // 2, groups=c)
        return x * conv1(z, m.conv1)

    return formula


def cpca(m):
    def formula(x):
        def mlp(z):
            return conv1(conv1(z, m.fc1).relu(), m.fc2)

        c = x.shape[1]
        x = x * (mlp(x.mean((2, 3), keepdim=True)) + mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()
        z = total = F.conv2d(F.pad(x, (2, 2, 2, 2)), m.conv0.weight, m.conv0.bias, groups=c)
        for flat, tall in m.strips:
            k = flat.kernel_size[1] // 2
            branch = F.conv2d(F.pad(z, (k, k, 0, 0)), flat.weight, flat.bias, groups=c)
            total = total + F.conv2d(F.pad(branch, (0, 0, k, k)), tall.weight, tall.bias, groups=c)
        return x * conv1(total, m.conv1)

    return formula


def caa(m):
    def unit(z, seq):
        z = bn(conv1(z, seq[0]), seq[1])
        return z * z.sigmoid()

    def formula(x):
        c, k = x.shape[1], m.conv_h.kernel_size[1] // 2
        z = F.pad(x, (3, 3, 3, 3)).unfold(2, 7, 1).unfold(3, 7, 1).mean((4, 5))
        z = F.conv2d(F.pad(unit(z, m.conv1), (k, k, 0, 0)), m.conv_h.weight, m.conv_h.bias, groups=c)
        z = F.conv2d(F.pad(z, (0, 0, k, k)), m.conv_v.weight, m.conv_v.bias, groups=c)
        return x * unit(z, m.conv2).sigmoid()

    return formula


def mlca(m):
    def slide(z, conv):  # (B, L)
        return F.conv1d(z.unsqueeze(1), conv.weight[..., 0], padding=conv.padding[0]).squeeze(1)

    def formula(x):
        n, (b, c) = m.local_size, x.shape[:2]
        cells = F.adaptive_avg_pool2d(x, n)
        whole = slide(cells.mean((2, 3)), m.conv).sigmoid()
        local = slide(cells.permute(0, 2, 3, 1).reshape(b, -1), m.conv_local).sigmoid()
        gate = local.reshape(b, n, n, c).permute(0, 3, 1, 2) * m.local_weight
        gate = gate + whole[..., None, None] * (1 - m.local_weight)
        return x * F.adaptive_avg_pool2d(gate, x.shape[2:])

    return formula


FORMULAS = [
    ("BAM", bam, 32, {}),
    ("SimAM", simam, 8, {}),
    ("ShuffleAttention", shuffle, 16, {"groups": 2}),
    ("ShuffleAttention", shuffle, 64, {}),
    ("TripletAttention", triplet, 8, {}),
    ("EMAttention", ema, 16, {"groups": 4}),
    ("EMAttention", ema, 32, {}),
    ("GAM", gam, 16, {}),
    ("GAM", gam, 16, {"groups": 2}),
    ("NAM", nam, 8, {}),
    ("GCT", gct, 8, {}),
    ("SGE", sge, 16, {"groups": 4}),
    ("SGE", sge, 64, {}),
    ("GE", ge, 8, {"extent": 4}),
    ("GE", ge, 8, {"extent": 2, "form": "theta"}),
    ("ELA", ela, 32, {}),
    ("LSKA", lska, 8, {}),
    ("LSKA", lska, 8, {"kernel_size": 7}),
    ("ParallelPolarizedSelfAttention", parallel, 8, {}),
    ("SequentialPolarizedSelfAttention", sequential, 8, {}),
    ("DoubleAttention", double, 16, {}),
    ("CrissCross", criss_cross, 16, {}),
    ("ParNetAttention", parnet, 8, {}),
    ("S2Attention", s2, 8, {}),
    ("S2Attention", s2, 10, {}),
    ("DualAttention", danet, 16, {}),
    ("scSE", scse, 8, {}),
    ("LKA", lka, 8, {}),
    ("LKA", lka, 8, {"kernel_size": 9, "dilation": 2}),
    ("CPCA", cpca, 8, {}),
    ("CAA", caa, 8, {}),
    ("MLCA", mlca, 8, {}),
    ("MLCA", mlca, 80, {"local_size": 3, "local_weight": 0.3}),
    ("SEVar1", se_var, 8, {}),
    ("SEVar2", se_var, 8, {}),
    ("SEVar3", se_var, 8, {}),
]


@modes
@pytest.mark.parametrize(
    ("name", "formula", "channels", "options"), FORMULAS, ids=lambda v: v if isinstance(v, str) else None
)
def test_formula(name, formula, channels, options, train):
    m = build(name, channels, train, **options)
    agree(m, formula(m), sample(channels))


def test_every_attention_module_has_its_oracle_here():
    timms = {"SEAttention", "ECA", "CBAM", "CoordAtt", "GC", "eSE", "GE", "ELA", "SK", "NonLocal"}
    attention = {n for n in list_modules() if get_entry(n).kind in ("channel", "spatial", "both")}
    kits = {n for n in attention if get_entry(n).cls.__module__.startswith("yolo_attn.modules.")}
    assert kits == timms | {name for name, *_ in (*FORMULAS, *GATES, *MIXERS, *TIMM)}


def test_eca_kernel_sizes_are_the_papers():
    assert [get_module("ECA")(c).conv.kernel_size[0] for c in (64, 128, 256, 512, 1024)] == [3, 5, 5, 5, 5]


@pytest.mark.parametrize("channels", [64, 128, 256, 512, 1024])
@pytest.mark.parametrize("reduction", [4, 8, 16, 32])
def test_se_costs_2c2_over_r(channels, reduction):
    count = sum(p.numel() for p in get_module("SEAttention")(channels, reduction=reduction).parameters())
    assert count == 2 * channels**2 // reduction


@pytest.mark.parametrize(
    ("name", "channels", "count"),
    [
        ("TripletAttention", 256, 300),  # 3 (2 k^2 + 2): convolution and batch norm
        ("ShuffleAttention", 512, 3 * 512 // 64),  # 3 C / G
        ("GCT", 256, 3 * 256),
        ("scSE", 256, 256**2 + 256),  # 2 C^2 / r with r = 2, and the spatial branch's C
        ("MLCA", 256, 2 * 5),
        ("LKA", 256, 256 * (5 * 5 + 7 * 7 + 3) + 256**2),  # a bias in each layer
        ("SGE", 256, 2 * 64),
        ("SEVar2", 256, 256),
        ("SEVar3", 256, 256**2),
        ("SimAM", 256, 0),
        ("SEVar1", 256, 0),
        ("CBAM", 256, 2 * 256**2 // 16 + 2 * 49),
    ],
)
def test_parameter_counts_are_the_papers(name, channels, count):
    assert sum(p.numel() for p in build(name, channels).parameters()) == count
