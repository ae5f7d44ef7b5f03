"""What the tests of the modules against their oracles share."""

from __future__ import annotations

import pytest
import torch

from yolo_attn.registry.registry import get_entry

TOL = {"rtol": 1e-10, "atol": 1e-10}


def build(name, channels=16, train=True, **options):
    """A module in float64 whose parameters and running statistics are all random."""
    torch.manual_seed(0)
    entry = get_entry(name)
    m = entry.cls(*([channels] if entry.binding.takes else []), **options).double()
    scramble(m)
    return m.train(train)


def scramble(m):
    generator = torch.Generator().manual_seed(1)
    for p in m.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.5 + (0.1 if p.dim() < 2 else 0)
    for n, b in m.named_buffers():
        if n.endswith("running_mean"):
            b.copy_(torch.randn(b.shape, generator=generator, dtype=b.dtype) * 0.1)
        elif n.endswith("running_var"):
            b.copy_(torch.rand(b.shape, generator=generator, dtype=b.dtype) + 0.5)


def sample(channels=16, size=(6, 5), batch=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).requires_grad_()


def agree(m, formula, x, atol=1e-10):
    """Same output, same gradients of the input and of every parameter that the formula reads from `m`."""
    y, ref = m(x), formula(x)
    assert y.shape == ref.shape == x.shape
    torch.testing.assert_close(y, ref, **TOL)
    wrt = [x, *m.parameters()]
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape).sin()
    mine = torch.autograd.grad((y * weight).sum(), wrt, allow_unused=True)
    other = torch.autograd.grad((ref * weight).sum(), wrt, allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in mine[1:]) or len(wrt) == 1
    for p, a, b in zip(wrt, mine, other):  # a parameter that the formula never reads has gradient zero
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=atol)


def twin(m, other, names, x):
    """Copy weights into `other`, {its name: ours}; same output and gradients."""
    other = other.double().train(m.training)
    mine = {**dict(m.named_parameters()), **dict(m.named_buffers())}
    theirs = {n for n in other.state_dict() if "num_batches" not in n}
    assert theirs == set(names), theirs ^ set(names)
    other.load_state_dict(
        {n: mine[k].detach().reshape(other.state_dict()[n].shape) for n, k in names.items()}, strict=False
    )
    x2 = x.detach().clone().requires_grad_()
    y, ref = m(x), other(x2)
    torch.testing.assert_close(y, ref, **TOL)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape).sin()
    (y * weight).sum().backward()
    (ref * weight).sum().backward()
    torch.testing.assert_close(x.grad, x2.grad, **TOL)
    params = dict(m.named_parameters())
    for n, p in other.named_parameters():
        torch.testing.assert_close(params[names[n]].grad.reshape(p.shape), p.grad, rtol=1e-9, atol=1e-10)


def same(*names):
    return {n: n for n in names}


def norm_names(theirs, mine):
    return {f"{theirs}.{k}": f"{mine}.{k}" for k in ("weight", "bias", "running_mean", "running_var")}


def bn(x, norm):
    """Batch norm written out; after `m(x)` has run once the running statistics no longer matter in training."""
    if norm.training:
        mu, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    else:
        mu, var = norm.running_mean.view(1, -1, 1, 1), norm.running_var.view(1, -1, 1, 1)
    return (x - mu) / (var + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def conv1(x, layer):
    """A 1 x 1 convolution as a sum over channels."""
    y = torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x)
    return y if layer.bias is None else y + layer.bias.view(1, -1, 1, 1)


def ln(x, norm):
    """Layer norm over the channels of (B, C, 1, 1)."""
    mu, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    return (x - mu) / (var + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


modes = pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
