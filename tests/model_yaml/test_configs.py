"""Every shipped YAML, every size: builds, runs forward and backward, with the right channels.

All sizes run on the meta device, where shapes are worked out and nothing is computed; the smallest runs for real.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

from yolo_attn.cli import main
from yolo_attn.errors import ConfigError
from yolo_attn.model_yaml import find, load
from yolo_attn.registry import registry

NAMES = find.list_configs()
DEEP = re.compile(r"resnet1\d\d")  # they repeat ResNet-50's rows
LARGEST = ("yolov5_se.yaml", "yolov5-p6_eca_neck.yaml", "yolov5_c3ca.yaml", "yolov8_c2fse.yaml", "yolo11_se.yaml")


def cases() -> list[Any]:
    found = []
    for name in NAMES:
        scales = load.read(find.configs_folder() / name).get("scales") or {"": None}
        for s in scales:
            # Every file runs for real below in its smallest size, but for the deepest; the other sizes differ in numbers.
            quick = s == list(scales)[-1] and (name in LARGEST or DEEP.search(name))
            marks = [] if quick else [pytest.mark.slow]
            found.append(pytest.param(name, str(s), id=f"{name}-{s}" if s else name, marks=marks))
    return found


def sized(name: str, scale: str) -> dict[str, Any]:
    """The dictionary that the host's parser gets for a size."""
    d = load.load_ultralytics(name, find.configs_folder() / name)
    return {**d, "scale": scale} if scale else d


def run(layers: nn.Sequential, save: list[int], x: torch.Tensor) -> tuple[Any, dict[int, tuple[Any, Any]]]:
    """The host's own forward loop, keeping what each attention row gets and gives."""
    kept: list[Any] = []
    seen = {}
    for m in layers:
        if m.f != -1:
            x = kept[m.f] if isinstance(m.f, int) else [x if j == -1 else kept[j] for j in m.f]
        given = x
        x = m(x)
        if registry.binding_of(type(m)) is not None and isinstance(given, torch.Tensor):
            seen[m.i] = (given, x)
        kept.append(x if m.i in save else None)
    return x, seen


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for v in values for t in tensors(v)]


class Norm(torch.autograd.Function):
    """What a batch norm is on the meta device: a tensor of the same shape, if there is a weight for each channel.

    torch works its own out in Python, from a dozen operations: three quarters of the time of these tests.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, bias)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (*grads, *(torch.empty_like(p) for p in ctx.saved_tensors))


def norm(x: torch.Tensor, mean: Any, var: Any, weight: Any, bias: Any, training: bool, *args: Any) -> torch.Tensor:
    assert training and x.is_meta and x.numel() > x.shape[1], "one value for a channel has no variance"
    assert all(t.shape == x.shape[1:2] for t in (mean, var, weight, bias)), (x.shape, weight.shape)
    normalized: torch.Tensor = Norm.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return normalized


def test_a_norm_of_other_channels_is_found() -> None:
    x, other = (torch.zeros(2, n, 3, 3, device="meta") for n in (4, 5))
    m = nn.BatchNorm2d(4, device="meta")
    given = m.running_mean, m.running_var, m.weight, m.bias
    norm(x, *given, True).sum().backward()
    assert m.weight.grad is not None and m.weight.grad.shape == (4,)
    for bad in (other, x[:1, :, :1, :1]):
        with pytest.raises(AssertionError):
            norm(bad, *given, True)


@pytest.mark.parametrize(("name", "scale"), cases())
def test_builds_and_runs_in_every_size(name: str, scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.functional, "batch_norm", norm)
    d = sized(name, scale)
    with torch.device("meta"):
        layers, save = tasks.parse_model(copy.deepcopy(d), 3, verbose=False)
        out, seen = run(layers.train(), save, torch.zeros(2, 3, 128, 192))
    shapes = {t.shape for t in tensors(out)}
    assert shapes
    sum(t.sum() for t in tensors(out) if t.is_floating_point()).backward()
    for p in layers.parameters():
        assert p.grad is None or p.grad.shape == p.shape
    for i, (given, result) in seen.items():
        entry = registry.get_entry(d_module(d, i))
        if entry.kind not in ("block", "fusion"):
            assert given.shape == result.shape, (i, given.shape, result.shape)


def d_module(d: dict[str, Any], i: int) -> str:
    name: str = (d["backbone"] + d["head"])[i][2]
    return name


@pytest.mark.parametrize("name", [n for n in NAMES if not DEEP.search(n)])  # those ran on the meta device
def test_the_smallest_size_for_real(name: str) -> None:
    """The whole model: finite outputs, and a gradient in every weight that attention brought."""
    d = sized(name, next(iter(load.read(find.configs_folder() / name).get("scales") or {"": None})))
    torch.manual_seed(0)
    cls = tasks.ClassificationModel if tasks.guess_model_task(d) == "classify" else tasks.DetectionModel
    model = cls(copy.deepcopy(d), ch=3, verbose=False).train()
    outputs = [t for t in tensors(model(torch.rand(2, 3, 64, 128))) if t.is_floating_point()]
    assert all(torch.isfinite(t).all() for t in outputs)
    sum((t * torch.randn_like(t)).sum() for t in outputs).backward()
    for m in model.model:
        if registry.binding_of(type(m)) is not None:
            for key, p in m.named_parameters():
                assert p.grad is not None, (m.i, m.type, key)
                assert torch.isfinite(p.grad).all(), (m.i, m.type, key)
    model.eval()
    with torch.no_grad():
        assert all(torch.isfinite(t).all() for t in tensors(model(torch.rand(1, 3, 128, 64))))


def test_there_are_configs() -> None:
    """The names that the README promises."""
    wanted = {f"{base}_{attention}{place}.yaml" for base in ("yolov5", "yolov5-p6") for attention in ("se", "eca")
              for place in ("", "_neck")}  # fmt: skip
    assert wanted | {"yolov5_se_p5.yaml"} <= set(NAMES)


def test_the_hosts_own_files_are_built_with_the_class_that_the_host_takes() -> None:
    import ultralytics
    from ultralytics.models import RTDETR, YOLOE, YOLOWorld
    from ultralytics.models.yolo.model import YOLO

    from yolo_attn.weights.start_from import model_class

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    for file in sorted(folder.rglob("*.yaml")):
        d = load.load_ultralytics(file.name, file)
        cls, task = model_class(d, file.name)
        host = RTDETR if "rtdetr" in file.stem else YOLOE if "yoloe" in file.stem else YOLO
        host = YOLOWorld if "-world" in file.stem else host
        assert cls is host.task_map.fget(None)[task]["model"], file.name  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="its last row, Concat"):
        model_class({"head": [[-1, 1, "Concat", [1]]]}, "odd.yaml")


@pytest.mark.parametrize("name", ["yolov8n-world.yaml", "yoloe-v8n-seg.yaml"])
def test_show_says_first_what_it_builds(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--imgsz", "64"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{name}: ") and "without attention" not in told


@pytest.mark.parametrize("name", ["yolov5n_cbam.yaml", "yolov5n_c3se.yaml"])
def test_show_knows_every_attention(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--imgsz", "64"]) == 0
    assert f"{tasks.DetectionModel('yolov5n.yaml', verbose=False).info()[1]:,}" in capsys.readouterr().out
