"""Attention into a detector in memory, and out again: the same detector, whatever its family and task."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from classic_host import Classic, classic

import yolo_attn
from yolo_attn import YoloAttnError
from yolo_attn.registry import registry
from yolo_attn.training.shapes import make as make_shapes
from yolo_attn.weights import untrained
from yolo_attn.weights.attention import attention_in

__all__ = ["classic"]  # a fixture

RTDETR = "yolov8-rtdetr.yaml"


def detector(name: str, nc: int | None = None) -> Any:
    """A detector with numbers in its batch norms that matter: fresh ones let activations fade to a constant."""
    from ultralytics import RTDETR, YOLO

    torch.manual_seed(0)
    handle = (RTDETR if "rtdetr" in name else YOLO)(name)
    if nc is not None:
        handle.model = type(handle.model)({**handle.model.yaml, "nc": nc}, verbose=False)
        handle.model.args, handle.model.task = {"imgsz": 64}, handle.task
        handle.model.names = {i: f"class {i}" for i in range(nc)}
    for m in handle.model.modules():
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
            m.weight.data.uniform_(0.8, 1.2)
    handle.model.eval()
    return handle


def outputs(network: Any, side: int = 64) -> list[torch.Tensor]:
    side = 256 if "RTDETR" in type(network.model[-1]).__name__ else side
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return list(untrained._flat(copy.deepcopy(network).eval()(x)))


def attention(network: Any) -> list[str]:
    return list(attention_in(network).values())


def same_state(a: Any, b: Any) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("yolov5n.yaml", "backbone"), ("yolov8n-cls.yaml", "neck"), ("yolov8n-cls.yaml", "backbone"),
        ("yolov8n-seg.yaml", "neck"), pytest.param("yolov8n-world.yaml", "backbone", marks=pytest.mark.slow),
        pytest.param("yolov9t.yaml", "neck", marks=pytest.mark.slow),
        pytest.param("yolov10n.yaml", "neck", marks=pytest.mark.slow), ("yolo11n-pose.yaml", "backbone"),
        pytest.param("yolo12n.yaml", "neck", marks=pytest.mark.slow),
        ("yolo26n.yaml", "neck"), ("yolo26n-obb.yaml", "backbone"), ("yolov5n_se.yaml", "backbone"), (RTDETR, "neck"),
    ],
)  # fmt: skip
def test_the_detector_stays_the_same_until_it_is_trained(name: str, where: str) -> None:
    """Outputs, names, task and classes are the source's; the source is untouched; detach gives it back bit for bit."""
    source = detector(name)
    before, said, rows = copy.deepcopy(source.model), dict(source.overrides), outputs(source.model)
    made = yolo_attn.attach(source, "ECA", where=where)
    assert same_state(source.model, before)
    assert source.model.yaml == before.yaml
    assert source.overrides == said
    assert attention(made.model).count("ECA") >= 1
    assert type(made) is type(source)
    assert type(made.model) is type(source.model)
    assert (made.task, made.names) == (source.task, source.names)
    got = outputs(made.model)
    assert len(got) == len(rows)
    for a, b in zip(rows, got):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))
    assert max(float(t.std()) for t in rows if t.numel() > 1) > 1e-4  # a constant would equal anything
    back = yolo_attn.detach(made)
    assert same_state(back.model, source.model)
    assert back.model.yaml == source.model.yaml
    assert back.names == source.names
    for a, b in zip(rows, outputs(back.model)):
        assert torch.equal(a, b)


def test_names_class_count_and_class_widths_of_a_fine_tuned_detector() -> None:
    """A head that kept the width of 80 classes keeps it."""
    from ultralytics.nn.tasks import DetectionModel

    source = detector("yolov8n.yaml", nc=3)
    source.model.load(DetectionModel("yolov8n.yaml", verbose=False), verbose=False)  # the host widens the head
    assert source.model.model[-1].cv3[0][-1].in_channels == 80
    made = yolo_attn.attach(source, "SE", where="backbone", args={"reduction": 8})
    assert made.names == {0: "class 0", 1: "class 1", 2: "class 2"}
    assert made.model.model[-1].nc == made.model.yaml["nc"] == 3
    assert made.model.model[-1].cv3[0][-1].in_channels == 80
    se = next(m for m in made.model.modules() if type(m) is registry.get_module("SE"))
    assert se.fc1.out_channels * 8 == se.fc1.in_channels
    assert same_state(yolo_attn.detach(made).model, source.model)


def test_several_modules_and_one_of_them_taken_out() -> None:
    source = detector("yolov5n.yaml", nc=2)
    once = yolo_attn.attach(source, "SE", where="backbone", start="paper")
    twice = yolo_attn.attach(once, "ECA", where=["P5", "neck"])
    assert sorted(attention(twice.model)) == ["ECA"] * 4 + ["SEAttention"] * 4
    for a, b in zip(outputs(once.model), outputs(twice.model)):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))
    assert same_state(yolo_attn.detach(twice, "ECA").model, once.model)  # SE with its own weights
    assert same_state(yolo_attn.detach(twice).model, source.model)
    assert same_state(yolo_attn.detach(yolo_attn.detach(twice, "SE"), "ECA").model, source.model)
    other = yolo_attn.attach(once, "SE", where="backbone", args={"reduction": 8})  # the same module at the same place
    assert same_state(yolo_attn.detach(other).model, source.model)
    for a, b in zip(outputs(once.model), outputs(other.model)):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))


def test_inside_blocks() -> None:
    source = detector("yolov8n.yaml", nc=2)
    made = yolo_attn.attach(source, "SE", where="inside")
    assert attention(made.model)
    assert same_state(yolo_attn.detach(made).model, source.model)


def test_a_detector_whose_yaml_has_attention() -> None:
    """Detach goes back to what was attached to; a second one takes out what the YAML has itself."""
    source = detector("yolov5n_se.yaml", nc=2)
    back = yolo_attn.detach(yolo_attn.attach(source, "ECA"))
    assert attention(back.model) == ["SEAttention"] * 4
    plain = yolo_attn.detach(back)
    assert attention(plain.model) == []
    theirs = {tuple(v.shape) for v in source.model.state_dict().values()}
    assert {tuple(v.shape) for v in plain.model.state_dict().values()} <= theirs


def test_what_was_set_on_the_head_comes_along() -> None:
    source = detector("yolo26n.yaml", nc=2)
    source.model.model[-1].max_det = 7
    source.model.end2end = False
    made = yolo_attn.attach(source, "ECA")
    assert made.model.model[-1].max_det == 7
    assert made.model.end2end is False


@pytest.mark.slow
@pytest.mark.parametrize("own_trainer", [False, True])
def test_training_starts_from_the_attached_weights(tmp_path: Path, own_trainer: bool) -> None:
    """With the host's trainer and the kit's; and the run can be loaded, detached, pickled."""
    from ultralytics import YOLO

    source = detector("yolov5n.yaml", nc=3)
    made = yolo_attn.attach(source, "ECA", where="neck")
    seen: dict[str, Any] = {}

    def look(trainer: Any) -> None:
        seen["state"] = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}

    made.add_callback("on_train_start", look)
    assert not any(look in found for found in source.callbacks.values())
    made.train(
        data=str(make_shapes()), imgsz=64, batch=16, epochs=1, fraction=0.25, workers=0, plots=False, val=False,
        project=str(tmp_path), name="run", device="cpu", verbose=False,
        **({"trainer": yolo_attn.Trainer} if own_trainer else {}),
    )  # fmt: skip
    begun, given = seen["state"], yolo_attn.attach(source, "ECA", where="neck").model.state_dict()
    assert begun.keys() == given.keys()
    assert all(torch.equal(begun[k], given[k]) for k in begun)
    best = YOLO(tmp_path / "run" / "weights" / "last.pt")
    assert attention(best.model).count("ECA") == 3
    assert best.names == {0: "circle", 1: "square", 2: "triangle"}
    assert attention(yolo_attn.detach(tmp_path / "run" / "weights" / "last.pt").model) == []


@pytest.mark.slow
def test_a_copy_of_the_handle_in_another_process(tmp_path: Path, python) -> None:  # type: ignore[no-untyped-def]
    made = yolo_attn.attach(detector("yolov5n.yaml", nc=2), "ECA")
    (tmp_path / "made.pkl").write_bytes(pickle.dumps(made))
    made.save(tmp_path / "made.pt")
    Path(made.ckpt_path).read_bytes()  # what a worker of a multi-GPU run would read
    out = python(
        "import pickle, yolo_attn\n"
        "for m in (pickle.load(open('made.pkl', 'rb')), yolo_attn.load('made.pt')):\n"
        "    print(type(m).__name__, m.names, [type(x).__name__ for x in m.model.model].count('ECA'))",
        cwd=tmp_path,
    ).ok()
    assert out.splitlines()[-2:] == ["YOLO {0: 'class 0', 1: 'class 1'} 3"] * 2


def test_the_file_behind_a_handle_goes_with_it() -> None:
    import gc

    made = yolo_attn.attach(detector("yolov5n.yaml", nc=2), "ECA")
    file = Path(made.ckpt_path)
    assert file.is_file()
    del made
    gc.collect()
    assert not file.parent.exists()


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A model's name has fresh weights and says so, unless its checkpoint is here; a bundle is opened likewise."""
    from yolo_attn.export.single import export

    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", logger="yolo_attn"):
        assert attention(yolo_attn.attach("yolov8n", "ECA").model) == ["ECA"] * 3
    assert "random weights" in caplog.text
    source = detector("yolov8n.yaml", nc=2)
    source.save("yolov8n.pt")
    kept = yolo_attn.load("yolov8n.pt")
    export("yolov8n.pt", format="bundle", log=str)
    for name in ("yolov8n", "yolov8n.pt", Path("yolov8n.pt"), "yolov8n.bundle"):
        made = yolo_attn.attach(name, "ECA")
        assert made.names == source.names
        assert same_state(yolo_attn.detach(made).model, kept.model)


def test_a_network_without_its_handle() -> None:
    source = detector("yolov8n.yaml", nc=2).model.half().train()
    made = yolo_attn.attach(source, "ECA")
    assert type(made) is type(source)
    assert made.training
    assert next(made.parameters()).dtype == torch.float16
    assert same_state(yolo_attn.detach(made), source)


class Doubled(torch.nn.Module):
    """What no one may put in unseen."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_attention_of_ones_own_without_a_start(home: Path) -> None:
    """It would change the detector, so it is asked for in so many words; the rows are registered by its file."""
    file = home / "gate_of_mine.py"
    file.write_text(
        "import yolo_attn\nfrom torch import nn\n@yolo_attn.register\nclass GateOfMine(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n        self.g = nn.Conv2d(channels, 1, 1)\n"
        "    def forward(self, x):\n        return x * self.g(x).sigmoid()\n",
        encoding="utf-8",
    )
    yolo_attn.load_plugin(file)
    try:
        source = detector("yolov5n.yaml", nc=2)
        with pytest.raises(YoloAttnError, match="GateOfMine has no identity start.*start=None"):
            yolo_attn.attach(source, "GateOfMine")
        made = yolo_attn.attach(source, "GateOfMine", start=None)
        assert attention(made.model) == ["GateOfMine"] * 3
        assert same_state(yolo_attn.detach(made).model, source.model)
    finally:
        yolo_attn.unregister("GateOfMine")


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line that says what to do."""
    monkeypatch.chdir(tmp_path)
    source = detector("yolov5n.yaml", nc=2)

    def refused(message: str, given: Any, module: Any = "ECA", **how: Any) -> None:
        with pytest.raises(YoloAttnError, match=message) as caught:
            yolo_attn.attach(given, module, **how)
        assert "\n" not in str(caught.value)

    refused("no attention module is called 'ECAA'", source, "ECAA")
    refused("no placement is called 'nekc'.*'neck'", source, where="nekc")
    refused("no row is a C2f", source, after="C2f")
    refused("start is 'identity' or 'paper'", source, start="identiy")
    refused("module is a registered name", source, registry.get_module("ECA"))
    refused("list is neither", [source])
    refused("checkpoint not found: none.pt", "none.pt")
    refused("Conv2d", torch.nn.Conv2d(3, 3, 1))
    refused("wrapped", torch.nn.DataParallel(source.model))
    fused = copy.deepcopy(source)
    fused.fuse()
    refused("batch norms are fused", fused)
    compiled = copy.deepcopy(source)
    compiled.model = torch.compile(compiled.model)
    refused("compiled by torch.compile", compiled)
    exported = copy.deepcopy(source)
    del exported._modules["model"]
    exported.model = "best.onnx"
    refused("best.onnx is an exported file", exported)
    changed = copy.deepcopy(source)
    changed.model.model[2].cv1.act = Doubled()  # holds no weights: only the outputs can tell
    refused("the outputs differ", changed)
    wide = copy.deepcopy(source)
    wide.model.model[1].conv.weight = torch.nn.Parameter(torch.zeros(8, 16, 3, 3))
    refused("model.1.conv.weight", wide)
    with pytest.raises(YoloAttnError, match="no attention .*its attention: none"):
        yolo_attn.detach(source)
    with pytest.raises(YoloAttnError, match="no SE .*its attention: ECA"):
        yolo_attn.detach(yolo_attn.attach(source, "ECA"), "SE")


def test_a_network_of_classic_yolov5(classic: Classic, tmp_path: Path) -> None:
    """Of the same class, with its names and anchors; fused ones are refused."""
    out = classic.python(
        """
import yolo_attn, torch
{host}
from pathlib import Path
source = yolo.Model(str(Path(yolo.__file__).parent / "yolov5n.yaml"), nc=3).eval()
source.names = ["a", "b", "c"]
for m in source.modules():
    if isinstance(m, torch.nn.BatchNorm2d):
        m.running_mean.normal_(0, 0.1), m.running_var.uniform_(0.5, 1.5)
made = yolo_attn.attach(source, "SE", where="backbone")
x = torch.rand(1, 3, 64, 64)
print(type(made) is type(source), made.names, made.training, len(made.model) - len(source.model))
print(torch.allclose(made(x)[0], source(x)[0], rtol=1e-5), made.yaml["yaml_file"])
back, kept = yolo_attn.detach(made).state_dict(), source.state_dict()
print(list(back) == list(kept) and all(torch.equal(back[k], kept[k]) for k in kept))
try:
    yolo_attn.attach(source.fuse(), "SE")
except yolo_attn.YoloAttnError as exc:
    print("refused", "batch norms" in str(exc))
""",
        cwd=tmp_path,
    ).ok()
    lines = [line for line in out.splitlines() if line.startswith(("True", "refused"))]
    assert lines == ["True ['a', 'b', 'c'] False 4", "True yolov5n_se.yaml", "True", "refused True"]
