"""ExecuTorch: what it computes otherwise than PyTorch, and that the export's conversion does not."""

from __future__ import annotations

import importlib.util
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from yolo_attn.errors import UsageError
from yolo_attn.export.formats.apart import convert_apart
from yolo_attn.export.formats.executorch import as_pytorch
from yolo_attn.runtime.engines import executorch as engine

installed = pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason='needs pip install "yolo_attn[executorch]"')

# Behind a convolution, whose map ExecuTorch keeps channels-last: what it made of each in version 1.5, and how much at least
# it was off by, or what it said.
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], float | str]] = {
    "softmax over the width": (lambda x: x.softmax(-1), 0.1),
    "softmax over channels brought to the end": (lambda x: x.transpose(1, 3).softmax(-1), 0.1),
    "GELU by tanh": (lambda x: functional.gelu(x, approximate="tanh"), 5e-5),
    "reshape behind fused attention": (
        lambda x: functional.scaled_dot_product_attention(x, x, x).reshape(1, 4, 10, 6), "Cannot view a tensor"
    ),
    "maximum over the channels": (lambda x: x * torch.max(x, 1, keepdim=True)[0], "amax.default only supports"),
    "maximum that drops its dimension": (lambda x: x[:, :, 0] * torch.max(x, 2)[0], "amax.default only supports"),
    "global pooling of maxima": (lambda x: x * nn.AdaptiveMaxPool2d((1, 1))(x), "is not in Core ATen opset"),
}  # fmt: skip


class Behind(nn.Module):
    """A convolution, and a form behind it."""

    def __init__(self, form: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.form, self.conv = form, nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self.conv(x))


def tried(form: Callable[[Tensor], Tensor]) -> float | str:
    """Return how far ExecuTorch is off from PyTorch, relative to the output's scale, or what it says."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    torch.manual_seed(0)
    network, x = Behind(form).eval(), torch.randn(1, 3, 5, 6)
    try:
        lowered = to_edge_transform_and_lower(torch.export.export(network, (x,)), partitioner=[XnnpackPartitioner()])
        program = Runtime.get().load_program(lowered.to_executorch().buffer)
        (got,) = program.load_method("forward").execute([x])
    except Exception as exc:
        return str(exc)
    want = network(x)
    return float((got - want).abs().max() / want.abs().max())


def measured() -> Path:
    """Try each form as it is, and as the export converts it."""
    with torch.no_grad():
        plain = {name: tried(form) for name, (form, _) in FORMS.items()}
        with as_pytorch():
            ours = {name: tried(form) for name, (form, _) in FORMS.items()}
        again = tried(FORMS["maximum over the channels"][0])
    Path("found.json").write_text(json.dumps({"plain": plain, "ours": ours, "again": again}))
    return Path("found.json")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float | str]]:
    """In a process of its own, as every conversion."""
    return json.loads(convert_apart(measured, tmp_path_factory.mktemp("executorch"), "ExecuTorch").read_text())


@installed
@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_converted_so_that_it_computes_as_pytorch_does(found: dict[str, dict[str, float | str]], name: str) -> None:
    """ExecuTorch 1.5 alone does not. When the second assertion fails, ask whether `as_pytorch` need do it still."""
    ours, plain, was = found["ours"][name], found["plain"][name], FORMS[name][1]
    assert isinstance(ours, float) and ours <= 2e-6
    assert was in plain if isinstance(was, str) and isinstance(plain, str) else not isinstance(plain, str) and plain >= was


@installed
def test_executorch_is_given_back(found: dict[str, dict[str, float | str]]) -> None:
    assert found["again"] == found["plain"]["maximum over the channels"]


def test_the_global_pooling_is_a_maximum_for_a_while() -> None:
    """Other poolings stay what they are; all are PyTorch's again afterwards."""
    pytest.importorskip("torch.nn.attention")
    pool, x = functional.adaptive_max_pool2d, torch.randn(2, 3, 4, 6)
    with as_pytorch():
        assert functional.adaptive_max_pool2d is not pool
        for given, size in ((x, 1), (x, (1, 1)), (x[0], 1), (x, (2, 3)), (x, (None, 2))):
            assert torch.equal(nn.AdaptiveMaxPool2d(size)(given), pool(given, size))
        assert len(functional.adaptive_max_pool2d(x, 1, return_indices=True)) == 2
    assert functional.adaptive_max_pool2d is pool


def test_the_number_of_threads_is_one_for_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set before a file is loaded, never under one that is open, whose threads would be gone."""
    counts = [2]
    pool: Any = SimpleNamespace(_threadpool_get_thread_count=lambda: counts[-1], _unsafe_reset_threadpool=counts.append)
    monkeypatch.setattr(engine, "imported", lambda *names: pool)
    monkeypatch.setattr(engine, "OPEN", weakref.WeakSet())
    for threads in (2, 1):
        engine._set_threads(Path("a.pte"), threads)
    assert counts == [2, 1]

    def network() -> None: ...

    engine.OPEN.add(network)
    engine._set_threads(Path("b.pte"), 1)
    with pytest.raises(UsageError, match="b.pte: ExecuTorch runs another file on 1 threads"):
        engine._set_threads(Path("b.pte"), 4)
    del network
    engine._set_threads(Path("b.pte"), 4)
    assert counts == [2, 1, 4]
    del pool._unsafe_reset_threadpool
    with pytest.raises(UsageError, match="cannot be told a number of threads"):
        engine._set_threads(Path("b.pte"), 4)
