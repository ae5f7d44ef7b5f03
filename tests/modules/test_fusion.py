"""Fast normalized fusion against the formula of EfficientDet, section 3.3, and in a detector's neck."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from yolo_attn.errors import RowError
from yolo_attn.modules.fusion import WeightedConcat, WeightedFusion


def formula(weights: list[float], eps: float) -> np.ndarray:
    w = np.maximum(np.asarray(weights, dtype=np.float64), 0)
    return w / (eps + w.sum())


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.3, 2.0, 0.7], [-1.0, 0.5, 0.25], [4.0]])
@pytest.mark.parametrize("eps", [1e-4, 1e-2])
def test_equals_the_formula(weights: list[float], eps: float) -> None:
    torch.manual_seed(0)
    n = len(weights)
    x = [torch.randn(2, 8, 5, 4, dtype=torch.float64) for _ in range(n)]
    want = formula(weights, eps)
    for cls in (WeightedFusion, WeightedConcat):
        module = cls([8] * n, eps=eps).double()
        module.weight.data = torch.tensor(weights, dtype=torch.float64)
        terms = [w * t.numpy() for w, t in zip(want, x)]
        expected = sum(terms) if cls is WeightedFusion else np.concatenate(terms, 1)
        np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [WeightedFusion, WeightedConcat])
def test_gradients(cls: type) -> None:
    torch.manual_seed(0)
    module = cls([3, 3, 3]).double()
    module.weight.data = torch.tensor([0.3, 1.2, 0.8], dtype=torch.float64)
    x = [torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(
        lambda w, *t: torch.func.functional_call(module, {"weight": w}, (list(t),)), (module.weight, *x)
    )


def test_starts_as_the_mean() -> None:
    x = [torch.full((1, 4, 2, 2), v) for v in (1.0, 2.0, 6.0)]
    torch.testing.assert_close(WeightedFusion([4] * 3)(x), torch.full((1, 4, 2, 2), 3.0), rtol=1e-4, atol=0)


def test_concat_keeps_the_order_and_adds_the_channels() -> None:
    x = [torch.ones(1, 2, 3, 3), 2 * torch.ones(1, 5, 3, 3)]
    y = WeightedConcat([2, 5])(x)
    assert y.shape == (1, 7, 3, 3)
    assert (y[:, 2:] > y[:, :2].max()).all()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: WeightedFusion(8), TypeError, "must be a list"),
        (lambda: WeightedFusion([8, 16]), ValueError, r"\[8, 16\] channels"),
        (lambda: WeightedFusion([8, 8], eps=256), ValueError, "widths come from the graph"),
        (lambda: WeightedConcat([8, 8], 2), ValueError, "dimension 1"),
    ],
)
def test_mistakes(make: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        make()  # type: ignore[operator]


def test_in_a_neck_and_its_errors_name_the_row() -> None:
    from ultralytics.nn.tasks import DetectionModel

    d = {
        "nc": 2,
        "yaml_file": "neck.yaml",
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 1]], [-1, 1, "Conv", [24, 3, 1]]],
        "head": [
            [[0, 1], 1, "WeightedFusion", []],
            [[-1, 2], 1, "WeightedConcat", [1]],
            [-1, 1, "Conv", [8, 1]],
            [[-1], 1, "Detect", ["nc"]],
        ],
    }
    net = DetectionModel(copy.deepcopy(d), verbose=False)
    assert net.model[5].conv.in_channels == 16 + 24
    assert net.save == [0, 1, 2]
    d["head"][0] = [[1, 2], 1, "WeightedFusion", []]  # type: ignore[index]
    with pytest.raises(RowError, match=r"neck.yaml, row 3.*\[16, 24\]"):
        DetectionModel(copy.deepcopy(d), verbose=False)
    d["head"][0] = [-1, 1, "WeightedFusion", []]  # type: ignore[index]
    with pytest.raises(RowError, match=r"neck.yaml, row 3.*list such as"):
        DetectionModel(copy.deepcopy(d), verbose=False)
