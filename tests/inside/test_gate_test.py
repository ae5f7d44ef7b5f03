"""Does the attention attend: planted detectors whose gates are known functions of the image, and `yolo-attn gates`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from yolo_attn import cli, get_module
from yolo_attn.detectors.source import Source
from yolo_attn.errors import CheckpointError, DataError
from yolo_attn.inside import gate_report, gate_test, gates_of_file
from yolo_attn.inside.gate_words import Words, sentence
from yolo_attn.inside.recording import Gates
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

SIDE = 64
DARK, LIGHT = (0.2, 0.3), (0.6, 0.9)  # brightness of the ground, by class


@pytest.fixture(scope="module")
def day_and_night(tmp_path_factory) -> tuple[str, np.ndarray, np.ndarray]:
    """A data set of one white square each, whose class is how bright its ground is: YAML, brightness, class."""
    import cv2

    root = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    bright, classes = [], []
    for split, n in (("train", 24), ("val", 40)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(n):
            c = i % 2
            ground = rng.uniform(*(LIGHT if c else DARK))
            image = np.full((SIDE, SIDE, 3), round(255 * ground), np.uint8)
            x, y = rng.integers(4, SIDE - 20, 2)
            image[y : y + 16, x : x + 16] = 255
            cv2.imwrite(str(root / "images" / split / f"{i:03}.png"), image)
            line = f"{c} {(x + 8) / SIDE} {(y + 8) / SIDE} {16 / SIDE} {16 / SIDE}\n"
            (root / "labels" / split / f"{i:03}.txt").write_text(line, encoding="utf-8")
            if split == "val":
                bright.append(image[..., 0].mean() / 255)
                classes.append(c)
    file = root / "ground.yaml"
    file.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [night, day]\n", encoding="utf-8")
    return str(file), np.array(bright), np.array(classes)


class First(nn.Module):
    """The red of the image, and three channels of ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x[:, :1], torch.ones_like(x)), 1)


class Head(nn.Module):
    """Finds the white square; its class is day where the last channel is above 1/2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = x.shape[0]
        white = x[:, 0] > 0.95 * x[:, 0].amax((1, 2), keepdim=True)
        n = white.sum((1, 2)).clamp(min=1)
        steps = torch.arange(SIDE) + 0.5
        cx, cy = ((white * s).sum((1, 2)) / n for s in (steps, steps[:, None]))
        day = (x[:, 3].mean((1, 2)) > 0.5).float()
        side = torch.full((b,), 16.0)
        return torch.stack((cx, cy, side, side, 0.9 * (1 - day), 0.9 * day), 1)[..., None].expand(-1, -1, 9)


def planted(slope: float, channel: int) -> nn.Module:
    """SE over 4 channels whose gate of one channel is sigmoid(slope * (red - 0.45)), of the others 1/2."""
    m = get_module("SEAttention")(4, reduction=4, bias=True)
    with torch.no_grad():
        for p in m.parameters():
            p.zero_()
        m.fc1.weight[0, 0] = 1
        m.fc2.weight[channel, 0] = slope
        m.fc2.bias[channel] = -0.45 * slope
    return m


class Net(nn.Module):
    """Attends in row 1, stuck in row 2, moves to no effect in row 3."""

    def __init__(self, *rows: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(First(), *rows, Head())
        self.names, self.stride = {0: "night", 1: "day"}, torch.tensor([32.0])
        for i, layer in enumerate(self.model):
            layer.i = i

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def source(*rows: nn.Module) -> Source:
    return Source(Path("planted.pt"), "ultralytics", Net(*rows).eval(), "detect", (SIDE, SIDE))


@pytest.fixture(scope="module")
def measured(day_and_night) -> gate_test.Measured:
    rows = (planted(20, 3), planted(0, 3), planted(20, 2))
    with torch.no_grad():  # the first halves the red that the third sees
        rows[2].fc1.weight[0, 0] = 4
    # in front of the head, the ones of row 1 are halved by row 2 and 3; its threshold stays 1/2 of what they leave
    rows[1].fc2.bias.data[3] = rows[2].fc2.bias.data[3] = 30.0
    return gate_test.measure(source(*rows), day_and_night[0], tell=lambda line: None)


def test_a_planted_gate_has_the_spread_and_the_class_means_that_were_planted(measured, day_and_night):
    _, bright, classes = day_and_night
    truth = 1 / (1 + np.exp(-20 * (bright - 0.45)))
    gate = measured.rows[0].gates[0]
    assert gate.axes == "channel" and gate.images == 40 and measured.train == 24
    assert float(gate.mean[3]) == pytest.approx(truth.mean(), abs=1e-5)
    assert float(gate.spread[3]) == pytest.approx(truth.std(), abs=1e-5)
    assert float(gate.mean[1]) == pytest.approx(0.5, abs=1e-6) and float(gate.spread[1]) < 1e-6
    by = measured.rows[0].classes[0]
    for c in (0, 1):
        assert by.means[c, 3] == pytest.approx(truth[classes == c].mean(), abs=1e-5)
    assert by.share > 0.9 and by.p == 0.001
    assert measured.rows[1].classes[0].share is None  # nothing varies


def test_the_verdicts_are_those_that_were_planted(measured):
    assert measured.value[0] == pytest.approx(1, abs=0.01)
    attends, stuck, vain = measured.rows
    assert [r.verdict for r in measured.rows] == [gate_test.ATTENDS, gate_test.CONSTANT, gate_test.BARELY]
    assert [r.location for r in measured.rows] == [f"row {k} (SEAttention)" for k in (1, 2, 3)]
    # frozen, all images are of one class: half of what is found is wrong, and one class is not found
    assert attends.frozen.change == pytest.approx(-0.75, abs=0.03) and attends.frozen.high < -0.5
    assert stuck.frozen.change == vain.frozen.change == vain.frozen.low == 0
    assert measured.at_mean.change == attends.frozen.change and stuck.still == 1
    assert vain.still == 0.75 and float(vain.gates[0].spread.max()) > 0.3
    words = Words("en")
    assert "attends: frozen at its mean, mAP50-95 changes by -0.7" in sentence(attends, words)
    assert "is a constant: 100% of its gates" in sentence(stuck, words) and "barely attends: 25%" in sentence(vain, words)


def test_a_gate_that_does_harm_is_said_to(day_and_night):
    """Its sign is the wrong one, and the head corrects it where the gate is at its mean."""
    wrong = planted(-20, 3)
    out = gate_test.measure(source(wrong), day_and_night[0])
    assert out.value[0] < 0.01 and out.rows[0].verdict == gate_test.ATTENDS
    assert sentence(out.rows[0], Words("en")).endswith("this row does harm on these images")
    assert len(out.rows) == 1 and out.rows[0].frozen == out.at_mean


def test_a_users_gate_is_frozen_by_its_ratio(day_and_night):
    """Of a class that says nothing of its gate, in front of a head that needs it."""
    import yolo_attn

    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gate = torch.ones_like(x[:, :, :1, :1])
            gate[:, 3] = torch.sigmoid(20 * (x[:, 0].mean((1, 2)) - 0.45))[:, None, None]
            return x * gate

    yolo_attn.register("MineOfTheTest", Mine)
    try:
        row = gate_test.measure(source(Mine()), day_and_night[0]).rows[0]
    finally:
        yolo_attn.unregister("MineOfTheTest")
    assert row.location == "row 1 (MineOfTheTest)" and row.verdict == gate_test.ATTENDS
    assert row.gates[0].how == "recognised by its ratio" and row.frozen.change < -0.5


def test_the_report_holds_what_was_measured(measured, tmp_path):
    page = gate_report.write(measured, "planted.pt", gate_report.folder(tmp_path / "out"), [0, 1])
    assert sorted(p.name for p in page.parent.iterdir()) == ["frozen.svg", "gates.csv", "gates.html", "gates.svg", "spread.svg"]
    text = page.read_text(encoding="utf-8")
    assert all(sentence(r, Words("en")) in text for r in measured.rows) and "explained by classes" in text
    lines = (page.parent / "gates.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "gate,row,channel,y,x,mean,spread,least,most,dead,saturated,night,day" and len(lines) == 1 + 3 * 4
    cells = dict(zip(lines[0].split(","), lines[4].split(",")))
    assert cells["gate"] == "model.1" and float(cells["spread"]) == pytest.approx(float(measured.rows[0].gates[0].spread[3]), rel=1e-4)
    numbers = json.loads(json.dumps(gate_report.as_json(measured)))
    assert [r["verdict"] for r in numbers["rows"]] == ["attends", "constant", "barely"]
    assert numbers["classes"]["day"] == {"images": 20}


def test_a_report_in_chinese_has_the_same_texts():
    en, zh = (Words(language) for language in ("en", "zh"))
    import re

    for key in en._texts:
        fields = [sorted(re.findall(r"{(\w+)", w._texts[key])) for w in (en, zh)]
        assert fields[0] == fields[1], key
    assert set(en._texts) == set(zh._texts)


def test_intervals_hold_together_and_a_difference_of_nothing_has_none():
    from yolo_attn.evaluation.images import match
    from yolo_attn.evaluation.together import differences

    rng = np.random.default_rng(1)
    truth = [np.array([[0, 0, 9, 9, 0.0]])] * 60
    base = [np.array([[0, 0, 9, 9, rng.uniform(0.4, 1), 0]]) for _ in truth]

    def worse(part: float) -> Any:
        return match(truth, [d if rng.uniform() > part else d * [[1, 1, 1, 1, 0.3, 0]] + [[20, 20, 20, 20, 0, 0]] for d in base], 1)

    first = match(truth, base, 1)
    same, little, much = differences(first, [first, worse(0.05), worse(0.4)])
    assert (same.change, same.low, same.high, same.tells) == (0, 0, 0, False)
    assert much.tells and much.high < 0 and math.isclose((much.low + much.high) / 2, much.change)
    alone = differences(first, [worse(0.4)])[0]
    assert little.high - little.low < much.high - much.low and alone.low is not None
    assert differences(match(truth[:5], base[:5], 1), [match(truth[:5], base[:5], 1)])[0].low is None


# ---------------------------------------------------------------- files and mistakes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    return str(make_shapes(tmp_path_factory.mktemp("shapes") / "data", Recipe(train=8, val=12, size=64)))


def saved(folder: Path, cfg: str, classes: int = 3) -> str:
    """A checkpoint with random weights."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    handle = YOLO(cfg)
    handle.model = type(handle.model)({**handle.model.yaml, "nc": classes}, verbose=False)
    handle.model.args, handle.model.task = {"imgsz": 64}, "detect"
    handle.model.names = dict(enumerate(("circle", "square", "triangle")[:classes]))
    file = folder / f"{Path(cfg).stem.replace('yolov5n', 'mine')}.pt"  # the host takes yolov5n.pt for one to download
    handle.save(file)
    return str(file)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return saved(tmp_path_factory.mktemp("weights"), "yolov5n_cbam.yaml")


def test_a_checkpoint_becomes_a_report(checkpoint, shapes, capsys, tmp_path):
    assert cli.main(["gates", checkpoint, "--data", shapes, "--json", "-o", str(tmp_path / "out"), "--images", "6"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert [r["location"] for r in numbers["rows"]] == [f"row {k} (CBAM)" for k in (3, 6, 9, 12)]
    assert [g["axes"] for g in numbers["rows"][0]["gates"]] == ["channel", "spatial"]
    assert numbers["images"] == 6 and numbers["train_images"] == 8 and numbers["mAP50-95"]["value"] == pytest.approx(0, abs=0.01)
    assert Path(numbers["report"]).parent == tmp_path / "out" and (tmp_path / "out" / "maps.svg").is_file()
    assert {r["verdict"] for r in numbers["rows"]} <= {"constant", "cannot tell"} and "Train it first" in numbers["notes"][0]


def test_without_the_frozen_gate_test_it_is_not_said_whether_a_gate_matters(day_and_night):
    out = gate_test.measure(source(planted(20, 3), planted(0, 3)), day_and_night[0], test=False)
    said = [sentence(r, Words("en")) for r in out.rows]
    assert said[0] == "row 1 (SEAttention): 25% of its gates move by more than 0.02 over images; whether mAP needs it was not measured"
    assert said[1] == "row 2 (SEAttention) is a constant: 100% of its gates move by at most 0.02 over images"
    assert out.value is None and out.train == 0 and out.rows[0].classes[0].share > 0.9


def test_a_gate_that_is_no_number_is_no_constant(day_and_night):
    """Broken weights stand still as well: the row is named among those without a gate, and gets no verdict."""
    broken = planted(0, 3)
    with torch.no_grad():
        broken.fc2.bias.fill_(float("nan"))
    out = gate_test.measure(source(planted(20, 3), broken), day_and_night[0], test=False)
    assert [r.location for r in out.rows] == ["row 1 (SEAttention)"]
    assert "a finite number on no image" in out.without["model.2"]


def test_a_gate_that_is_no_number_in_one_channel_is_told_with_its_channel(day_and_night):
    broken = planted(0, 3)
    with torch.no_grad():
        broken.fc2.bias[2] = float("nan")
    out = gate_test.measure(source(broken, nn.Identity()), day_and_night[0], test=False)
    (note,) = [n for n in out.notes if "NaN" in n]
    gate = out.rows[0].gates[0]
    assert note.startswith(f"{gate.location}: its gate is NaN or infinite in 1 of {gate.mean.shape[0]} channels (2), on {gate.images} of")
    assert out.rows[0].gates[0].number == pytest.approx(0.5, abs=0.2)  # of the other channels


def test_channels_that_cannot_be_told_are_not_counted_as_still():
    gates = Gates(nn.Sequential(planted(0, 3)), keep=2)
    (gate,) = gates.values()
    value = torch.tensor([0.5, 0.5, 0.5, 0.5]).reshape(1, 4, 1, 1)
    for move in (-0.2, 0.2):  # the first moves, the second stands still, the others have no input
        gate.moments.add(value + move * torch.eye(4)[0].reshape(1, 4, 1, 1), torch.tensor([True, True, False, False]).reshape(1, 4, 1, 1))
    assert gate.still() == 0.5


def test_mistakes_are_told_in_one_line(checkpoint, shapes, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain, one = saved(tmp_path, "yolov5n.yaml"), saved(tmp_path, "yolov5n_se.yaml", 2)
    bare = make_shapes(tmp_path / "bare", Recipe(train=4, val=4, size=64))
    for label in (tmp_path / "bare" / "labels" / "val").glob("*.txt"):
        label.unlink()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine", encoding="utf-8")
    for argv, code, words in (
        ([plain, "--data", shapes], 1, "has no attention of the kit"),
        (["none.pt", "--data", shapes], 1, "checkpoint not found: none.pt"),
        ([checkpoint, "--data", "none.yaml"], 1, "data set YAML not found: none.yaml"),
        ([checkpoint, "--data", str(bare)], 1, "has 4 images and no labels, so that there is no mAP"),
        ([one, "--data", shapes], 1, "has 3 classes, and"),
        ([checkpoint, "--data", shapes, "--classes", "cube", "--no-test"], 1, "no class is called 'cube'. Classes: circle, square, triangle"),
        ([checkpoint, "--data", str(bare), "--classes", "circle", "--no-test"], 1, "no image of 'val:' holds a 'circle'"),
        ([checkpoint, "--data", shapes, "-o", "taken"], 1, "holds files and no gates.html"),
        ([checkpoint, "--data", shapes, "-o", str(bare)], 1, "is a file. Choose a folder"),
        ([checkpoint, "--data", shapes, "--images", "0"], 2, "--images must be at least 1, got 0"),
        ([checkpoint, "--data", shapes, "--lang", "fr"], 2, "--lang fr: texts exist in en and zh"),
        ([checkpoint, "--data", shapes, "--device", "gpu"], 2, "--device gpu: PyTorch cannot use it here"),
    ):
        assert cli.main(["gates", *argv]) == code, argv
        said = capsys.readouterr().err.strip().splitlines()
        assert words in said[-1] and "Traceback" not in "".join(said), said
    assert not list(tmp_path.glob("*_gates")) and not Path(checkpoint).with_name("mine_cbam_gates").exists()


def test_attention_without_gates_is_named_with_the_reason(day_and_night):
    with pytest.raises(CheckpointError, match=r"its attention has no gate: model.1: it mixes positions"):
        gate_test.measure(source(get_module("NonLocal")(4)), day_and_night[0])
    other = source(planted(1, 3))
    other.model.names = {0: "a", 1: "b", 2: "c"}
    with pytest.raises(DataError, match="2 classes, and planted.pt detects 3"):
        gate_test.measure(other, day_and_night[0])
    segment = source(planted(1, 3))
    segment.task = "segment"
    out = gate_test.measure(segment, day_and_night[0])
    assert out.value is None and "nothing was frozen" in out.notes[0]
    assert gates_of_file.run.__doc__
