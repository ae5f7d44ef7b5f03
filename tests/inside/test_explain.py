"""What a detector looks at: on planted detectors that is known, and shuffled weights score at chance."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from classic_host import Classic, classic  # noqa: F401  # the fixture

from yolo_attn.cli import main
from yolo_attn.detectors import bundle
from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.inside import cam, faithfulness, paired, receptive_field, spatial
from yolo_attn.inside.reading import Reader, matched, picture
from yolo_attn.model_yaml import find

SIZE = 128
SIDE = 32  # of the squares that are drawn, and of the boxes that the planted detectors find


def _library() -> None:
    """torchcam is an extra that Python below 3.11 gets in an older version; where CI is set it may not be missing."""
    try:
        cam.need_library()
    except Exception as exc:
        if os.environ.get("CI") and sys.version_info >= (3, 11):
            pytest.fail(str(exc))
        pytest.skip(str(exc))


def planted(folder: Path, name: str, shift: int = 0, attention: bool = False, classes: tuple[str, ...] = ("red", "other")) -> Path:
    """A checkpoint that finds red squares: each position's score is the redness of the pixels under it, or left of it.

    Args:
        folder: Where it is written.
        name: Of the file.
        shift: How many positions of 8 pixels to the left it looks.
        attention: With CBAM behind the backbone, as the identity.
        classes: Names of the two classes.
    """
    rows = [[-1, 1, "Conv", [8, 3, 2]]] * 3 + ([[-1, 1, "CBAM", [{"start": "identity"}]]] if attention else [])
    head: list[Any] = [[-1, 1, "Conv", [8, 3, 1]]] * max(shift, 1)
    head.append([[len(rows) + len(head) - 1], 1, "Detect", ["nc"]])
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"nc": 2, "backbone": rows, "head": head}), encoding="utf-8")
    source = open_source(file)
    model = source.model
    detect = model.model[-1]

    def passing(conv: Any, weight: Any, channel: int = 0) -> None:
        """Conv, batch norm and activation that put out `weight` of channel 0."""
        conv.conv.weight.data.zero_()
        conv.conv.weight.data[channel, :] = weight
        norm = conv.bn
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.data.fill_(1)
        norm.bias.data.zero_()

    even = torch.full((3, 3), 1 / 9)
    colour = torch.tensor([1.0, -0.5, -0.5])[:, None, None] * even * 8
    one = torch.zeros(8, 3, 3)
    centre = one.clone()
    centre[0, 1, 1] = 1
    left = one.clone()
    left[0, 1, 0] = 1
    passing(model.model[0], colour)
    for k in (1, 2):
        passing(model.model[k], torch.cat((even[None], one[1:])))
    for row in model.model[len(rows) : -1]:
        passing(row, left if shift else centre)
    for m in detect.modules():
        if isinstance(m, torch.nn.Conv2d) and m.out_channels != 1:  # not the DFL's
            m.weight.data.zero_()
            if m.bias is not None:
                m.bias.data.zero_()
    for conv in detect.cv3[0].modules():
        if type(conv).__name__ in ("Conv", "DWConv"):
            conv.conv.weight.data[0, 0, conv.conv.kernel_size[0] // 2, conv.conv.kernel_size[1] // 2] = 1
            conv.bn.running_mean.zero_()
            conv.bn.running_var.fill_(1 - conv.bn.eps)
    last = detect.cv3[0][-1]
    last.weight.data[0, 0] = 1.5
    last.bias.data = torch.tensor([-8.0, -12.0])
    bins = torch.full((4, 16), -20.0)
    bins[:, SIDE // 16] = 20  # two positions of 8 pixels to each side
    detect.cv2[0][-1].bias.data = bins.flatten()
    model.names = dict(enumerate(classes))
    path = folder / f"{name}.pt"
    source.handle.save(path)
    return path


def scene(k: int) -> tuple[Any, tuple[int, int], tuple[int, int]]:
    """A grey image with a red and a green square, and the upper left corner (x, y) of each."""
    rng = np.random.default_rng(k)
    image = rng.integers(110, 130, (SIZE, SIZE, 3), dtype=np.uint8)
    red = (8 * int(rng.integers(1, 4)), 8 * int(rng.integers(1, 11)))
    green = (8 * int(rng.integers(9, 11)), 8 * int(rng.integers(1, 11)))
    for (x, y), paint in ((red, (20, 20, 230)), (green, (20, 230, 20))):
        image[y : y + SIDE, x : x + SIDE] = paint
    return image, red, green


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes, and the planted checkpoints."""
    where = tmp_path_factory.mktemp("explain")
    (where / "images").mkdir()
    for k in range(6):
        cv2.imwrite(str(where / "images" / f"{k}.png"), scene(k)[0])
    planted(where, "plain")
    planted(where, "gated", attention=True)
    return where


def box_of(corner: tuple[int, int]) -> Any:
    return np.array([*corner, corner[0] + SIDE, corner[1] + SIDE], dtype=float)


# --- what the planted detectors look at -------------------------------------------------------------------------------


def test_a_detector_of_one_colour_looks_at_it(folder: Path) -> None:
    _library()
    reader = Reader(open_source(folder / "plain.pt"))
    assert cam.layers_of(reader) == [2] and cam.layers_of(reader, "head") == [3]
    inside, elsewhere, areas = [], [], []
    for k in range(6):
        image, red, green = scene(k)
        seen = picture(str(k), image, (SIZE, SIZE), 8)
        found = reader.detections(seen.x, conf=0.25, iou=0.5)
        assert found and found[0].cls == 0
        assert abs(found[0].box - box_of(red)).max() <= 12
        map_ = cam.maps(reader, seen.x, found[:1], [2])[0]
        wide = box_of(red) + np.array([-8, -8, 8, 8])  # what a position of 8 pixels cannot tell
        inside.append(faithfulness.energy(map_, wide))
        elsewhere.append(faithfulness.energy(map_, box_of(green)))
        areas.append(faithfulness.area(faithfulness.curves(reader, seen.x, found[0], [map_, -map_]))[:, 1])
    assert min(inside) > 0.95 and max(elsewhere) < 0.01
    areas = np.array(areas)
    assert (areas[:, 0] < 0.5 * areas[:, 1]).all()  # what the map marks is needed; what it marks least is not


def test_a_detector_that_looks_beside_its_box_is_seen_to(tmp_path: Path) -> None:
    """The box lies 48 pixels to the right of what its score comes from: energy in the box is low, though the box is there."""
    _library()
    reader = Reader(open_source(planted(tmp_path, "beside", shift=6)))
    image, red, _ = scene(3)
    seen = picture("", image, (SIZE, SIZE), 8)
    first = reader.detections(seen.x, conf=0.25, iou=0.5)[0]
    right = (first.box[0] + first.box[2]) / 2 - red[0] - SIDE / 2
    assert 36 <= right <= 60
    map_ = cam.maps(reader, seen.x, [first], cam.layers_of(reader))[0]
    assert faithfulness.energy(map_, first.box) < 0.05
    assert faithfulness.energy(map_, box_of(red) + np.array([-8, -8, 8, 8])) > 0.95


def test_energy_is_the_share_in_the_box() -> None:
    map_ = np.zeros((10, 20))
    map_[2:4, 5:9] = 3.0
    assert faithfulness.energy(map_, (5, 2, 9, 4)) == 1 and faithfulness.energy(map_, (7, 2, 20, 10)) == 0.5
    assert faithfulness.energy(map_ * 0, (0, 0, 10, 10)) == 0.5  # nothing: as if flat
    assert faithfulness.box_mask((3.4, 3.4, 3.45, 3.45), (10, 20)).sum() == 1


def test_areas_under_known_curves() -> None:
    flat, fall = np.ones(9), np.array([1.0, 1, 1, 1, 0, 0, 0, 0, 0])
    assert faithfulness.area(flat) == pytest.approx(1)
    assert faithfulness.area(fall) == pytest.approx(2.5 / 6)  # on doubling shares each step weighs the same


def test_the_field_of_even_convolutions(folder: Path) -> None:
    """Three of 3 x 3 at stride 2 reach 15 pixels; the first is 3 wide, spread evenly."""
    reader = Reader(open_source(folder / "plain.pt"))
    seen = picture("", np.full((SIZE, SIZE, 3), (20, 20, 230), np.uint8), (SIZE, SIZE), 8)
    maps, strides = receptive_field.fields(reader, [seen.x])
    assert strides == [8] and maps.shape == (1, 1, SIZE, SIZE) and maps.sum() == pytest.approx(1)
    assert receptive_field.side(maps[0, 0], 1.0) == 15
    single = np.zeros((9, 9))
    single[4, 4] = 1
    assert receptive_field.side(single, 0.5) == 1
    even = np.ones((9, 9))
    assert receptive_field.side(even, 0.3) == 5 and receptive_field.side(even, 1.0) == 9
    assert np.isnan(receptive_field.side(single * 0, 0.5))


# --- chance -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chances() -> Any:
    """(subjects, images, 3) scores of the maps of 12 shufflings of one detector, for the detections of another."""
    _library()
    torch.manual_seed(0)
    reader = Reader(open_source("yolov5n_se.yaml"))
    seen = [picture("", im, (64, 64), 32) for im in drawn_images(5, 1)]
    layers = cam.layers_of(reader)
    drawn = [faithfulness.shuffled(reader, s, torch.cat([p.x for p in seen])) for s in range(12)]
    out = []
    for p in seen:
        best = max(reader.detections(p.x, conf=0.0, iou=0.5), key=lambda c: -abs(c.box[2:] - c.box[:2] - 20).sum())
        maps = [cam.maps(r, p.x, [best], layers)[0] for r in drawn]
        areas = faithfulness.area(faithfulness.curves(reader, p.x, best, maps))
        out.append(np.column_stack(([faithfulness.energy(m, best.box) for m in maps], areas)))
    return np.array(out).transpose(1, 0, 2)


@pytest.mark.parametrize("measure", [0, 1, 2], ids=["energy", "insertion", "deletion"])
def test_shuffled_weights_score_at_chance(chances: Any, measure: int) -> None:
    """Each of twelve shuffled detectors beside five others, many times: it is beyond chance as rarely as is promised."""
    rng = np.random.default_rng(0)
    beyond, outside = [], []
    for _ in range(300):
        own, *others = rng.permutation(len(chances))[:6]
        result = paired.beyond_chance(chances[own, :, measure], chances[others, :, measure].T, more=measure < 2)
        beyond.append(result.verdict == paired.BEYOND)
        outside.append(not result.chance_low <= result.mean <= result.chance_high)
    assert np.mean(beyond) <= 0.05 and np.mean(outside) <= 0.1


def test_what_was_learned_is_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    own, drawn = rng.normal(0.8, 0.05, 8), rng.normal(0.2, 0.05, (8, 5))
    result = paired.beyond_chance(own, drawn, more=True)
    assert result.verdict == paired.BEYOND and result.low < 0.8 < result.high
    assert result.chance_low < result.chance < result.chance_high < result.mean
    assert paired.beyond_chance(own, drawn, more=False).verdict == paired.WITHIN  # the wrong side
    # Few images that contradict each other tell nothing, however far the mean lies from the shuffled ones.
    torn = np.array([0.9, 0.05, 0.9, 0.05, 0.9, 0.1])
    assert paired.beyond_chance(torn, np.full((6, 5), 0.2) + rng.normal(0, 0.001, (6, 5)), more=True).verdict == paired.WITHIN


def test_noise_is_never_told_as_a_difference() -> None:
    """Two detectors of one kind, 2000 folders, skewed scores: at most as many false ones as the level allows."""
    rng = np.random.default_rng(1)
    told = [paired.compared(*rng.beta(8, 2, (2, 12)), tests=3).verdict for _ in range(2000)]
    assert np.mean([v in (paired.MORE, paired.LESS) for v in told]) < 0.05 / 3 + 0.01
    real = rng.beta(8, 2, 12)
    assert paired.compared(real + 0.1 + rng.normal(0, 0.02, 12), real).verdict == paired.MORE
    assert paired.compared(real - 0.1 + rng.normal(0, 0.02, 12), real).verdict == paired.LESS
    assert paired.compared(real, real).verdict == paired.SAME
    assert paired.compared(real[:4] + 0.1, real[:4]).verdict == paired.UNTOLD
    assert paired.compared([np.nan], [1.0]).images == 0


def test_an_image_counts_once_however_many_objects_it_has() -> None:
    means = paired.per_image([[1.0], [3.0], [10.0]], [0, 0, 4])
    assert means.tolist() == [[2.0], [10.0]]


def test_shuffling_keeps_the_numbers_and_nothing_else(folder: Path) -> None:
    reader = Reader(open_source(folder / "gated.pt"))
    x = torch.rand(2, 3, 64, 64)
    before = {k: v.clone() for k, v in reader.model.state_dict().items()}
    one, same, other = (faithfulness.shuffled(reader, s, x).model.state_dict() for s in (0, 0, 1))
    assert all(torch.equal(v, before[k]) for k, v in reader.model.state_dict().items())  # the detector itself is not changed
    weight = "model.0.conv.weight"
    assert torch.equal(one[weight], same[weight]) and not torch.equal(one[weight], other[weight])
    assert torch.equal(one[weight].flatten().sort()[0], before[weight].flatten().sort()[0])
    assert torch.equal(one["model.5.dfl.conv.weight"], before["model.5.dfl.conv.weight"])


# --- reading detectors ------------------------------------------------------------------------------------------------


def test_detections_are_those_of_the_host(folder: Path) -> None:
    source = open_source(folder / "plain.pt")
    image = scene(1)[0]
    (theirs,) = source.handle.predict(image, imgsz=SIZE, conf=0.25, iou=0.5, verbose=False)
    ours = Reader(source).detections(picture("", image, (SIZE, SIZE), 8).x, conf=0.25, iou=0.5)
    assert len(ours) == len(theirs.boxes) > 0
    assert np.allclose([c.box for c in ours], theirs.boxes.xyxy.numpy(), atol=0.6)
    assert np.allclose([c.score for c in ours], theirs.boxes.conf.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["yolov10n.yaml", "yolo26n.yaml"])
def test_a_head_without_nms_keeps_its_positions(name: str) -> None:
    _library()
    torch.manual_seed(0)
    source = open_source(name)
    if not hasattr(source.model.model[-1], "one2one_cv2"):
        pytest.skip(f"this version of the host has no such head for {name}")
    source.model.model[-1].end2end = True
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        rows = source.model(x)
    while not torch.is_tensor(rows):
        rows = rows[0]
    assert rows.shape[-1] == 6
    reader = Reader(source)
    found = reader.detections(x, conf=0.0, iou=0.7)
    best = rows[0, rows[0, :, 4].argmax()]
    assert found[0].score == pytest.approx(float(best[4]), abs=1e-6) and np.allclose(found[0].box, best[:4], atol=1e-3)
    a, b = found[0].index, found[1].index
    assert a != b and cam.maps(reader, x, found[:2], cam.layers_of(reader)).sum((1, 2)).min() > 0
    assert source.model.model[-1].postprocess is not reader.model.model[-1].postprocess


def test_a_bundle_is_looked_at_as_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder / "plain.pt")
    bundle.save(source, tmp_path / "a.bundle")
    x = picture("", scene(2)[0], (SIZE, SIZE), 8).x
    found = [Reader(s).detections(x, conf=0.25, iou=0.5) for s in (source, open_source(tmp_path / "a.bundle"))]
    assert [(c.index, c.score) for c in found[0]] == [(c.index, c.score) for c in found[1]] != []


def test_matching_takes_the_nearest_of_one_class(folder: Path) -> None:
    reader = Reader(open_source(folder / "plain.pt"))
    found = reader.detections(picture("", scene(1)[0], (SIZE, SIZE), 8).x, conf=0.25, iou=0.99)
    assert len(found) > 2
    assert [a is b for a, b in matched(found, list(reversed(found)))] == [True] * len(found)
    other = [type(c)(c.index, 1, c.score, c.box) for c in found]
    assert matched(found, other) == [] == matched(found, [])


def test_gates_of_positions_are_seen(folder: Path) -> None:
    reader = Reader(open_source(folder / "gated.pt"))
    found = spatial.gate_maps(reader, picture("", scene(0)[0], (SIZE, SIZE), 8).x)
    assert [m.shape for _, _, m in found] == [(16, 16)] and "CBAM" in found[0][1]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in reader.model.modules())
    assert hooks == 0


def test_a_gate_that_follows_the_boxes_is_told_from_one_that_knows_the_border() -> None:
    """Both let more through inside the boxes; only one of them looks at the image."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        x, y = rng.integers(8, 40, 2)
        follows, border = rng.normal(0.5, 0.02, (2, 16, 16))
        border[2:-2, 2:-2] += 0.3
        follows[y // 4 : y // 4 + 4, x // 4 : x // 4 + 4] += 0.3
        box = np.array([[x, y, x + 16, y + 16]], dtype=float)
        gates = [[("follows", "row 1", follows), ("border", "row 2", border)]]
        images.append(SimpleNamespace(shape=(64, 64), seen=[box], gates=gates))
    found = spatial.inside_boxes(images, 0)
    assert found["follows"][1].verdict == paired.MORE and found["follows"][1].mean > 0.1
    assert found["border"][1].verdict == paired.SAME and abs(found["border"][1].mean) < 0.02
    assert spatial.inside_boxes(images[:1], 0)["follows"][1].verdict == paired.UNTOLD


# --- the command ------------------------------------------------------------------------------------------------------


def test_base_beside_attention(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _library()
    before = {p: p.stat().st_mtime for p in folder.rglob("*")}
    argv = ["explain", str(folder / "gated.pt"), str(folder / "images"), "--base", str(folder / "plain.pt")]
    argv += ["--imgsz", str(SIZE), "--draws", "3", "--limit", "5", "--max-det", "1", "--json"]
    outs = [tmp_path / "a", tmp_path / "b"]
    printed = []
    for out in outs:
        assert main([*argv, "-o", str(out)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    names = sorted(p.relative_to(outs[0]).as_posix() for p in outs[0].rglob("*") if p.is_file())
    assert [n for n in names if "/" not in n] == [
        "curves.png", "curves.svg", "detections.csv", "explain.html", "explain.json", "receptive_field.png", "receptive_field.svg",
    ]  # fmt: skip
    assert len([n for n in names if n.startswith("pictures/")]) == 5
    for n in names:  # a seed decides everything
        assert (outs[0] / n).read_bytes() == (outs[1] / n).read_bytes(), n
    told = json.loads(printed[0])
    assert told == json.loads((outs[0] / "explain.json").read_text(encoding="utf-8"))
    assert [d["name"] for d in told["detectors"]] == ["plain.pt", "gated.pt"]
    assert (told["images"], told["left_out"], told["detections"]) == (5, 1, 5)
    for detector in told["detectors"]:
        assert detector["chance"]["energy"]["mean"] > 0.5
    assert set(told["difference"]) == {"energy", "insertion", "deletion"}
    assert list(told["detectors"][1]["gates"]) != [] == list(told["detectors"][0]["gates"])
    page = (outs[0] / "explain.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg') == 5 and not re.findall(r'(?:src|href)="(?!data:|#)', page)
    table = (outs[0] / "detections.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 2 * 5 and table[1].split(",")[2] == "red"
    assert {p: p.stat().st_mtime for p in folder.rglob("*")} == before  # nothing is written beside what it reads
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_equal_detectors_do_not_differ(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _library()
    argv = ["explain", str(folder / "plain.pt"), str(folder / "images"), "--base", str(folder / "plain.pt"), "--lang", "zh"]
    assert main([*argv, "--imgsz", str(SIZE), "--draws", "2", "--max-det", "1", "-o", str(tmp_path / "o")]) in (0, 1)
    said = capsys.readouterr()
    if "no font of this machine" in said.err:  # the only thing that may go wrong with a page in Chinese
        return
    rows = [t for t in said.out.splitlines() if " less plain.pt" in t]
    assert len(rows) == 5 and all(t.endswith("not distinguishable") for t in rows[:3])
    assert not [t for t in rows[3:] if t.endswith((": more", ": less"))]
    assert '<html lang="zh-CN">' in (tmp_path / "o" / "explain.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["plain.pt", "text.png"], 1, "none of 1 files can be read as an image"),
        (["plain.pt", "nowhere.png"], 1, "source not found: nowhere.png"),
        (["plain.pt", "empty"], 1, "the folder has no images"),
        (["plain.pt", "grey.png"], 1, "no detection of confidence above 0.25 in 1 images, the first grey.png. Lower it with --conf"),
        (["plain.pt", "film.mp4"], 1, "film.mp4: holds no image; explain does not take videos"),
        (["plain.pt", "images", "--base", "cats.pt"], 1, "detects other classes than"),
        (["missing.pt", "images"], 1, "checkpoint not found"),
        (["plain.yaml", "images", "--imgsz", "64", "--conf", "1"], 1, "no detection"),
        (["plain.pt", "images", "-o", "images"], 1, "images: is not empty"),
        (["plain.pt", "images", "--conf", "2"], 2, "--conf must be between 0 and 1"),
        (["plain.pt", "images", "--draws", "1"], 2, "--draws must be at least 2"),
        (["plain.pt", "images", "--layers", "neck"], 2, "--layers takes backbone or head"),
        (["plain.pt", "images", "--lang", "fr"], 2, "--lang"),
        (["plain.pt"], 2, "required: PATH"),
    ],
)
def test_mistakes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    argv: list[str], code: int, message: str,
) -> None:  # fmt: skip
    _library()
    for name in ("plain.pt", "plain.yaml", "images"):
        (tmp_path / name).symlink_to(folder / name)
    if "cats.pt" in argv:
        planted(tmp_path, "cats", classes=("cat", "dog"))
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    (tmp_path / "film.mp4").write_bytes(b"\0" * 99)
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((SIZE, SIZE, 3), 120, np.uint8))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    more = [] if "--imgsz" in argv else ["--imgsz", str(SIZE)]
    assert main(["explain", *argv, *more, *([] if "-o" in argv else ["-o", "o"])]) == code
    said = capsys.readouterr().err
    last = said.strip().splitlines()[-1]
    assert last.startswith("yolo-attn explain: ") and message in last, said
    assert sorted(tmp_path.iterdir()) == before  # nothing is left


def test_without_the_library_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchcam", None)
    monkeypatch.setitem(sys.modules, "torchcam.methods", None)
    assert main(["explain", str(folder / "plain.pt"), str(folder / "images")]) == 1
    assert "pip install 'yolo_attn[explain]'" in capsys.readouterr().err


def test_an_image_that_is_none_is_told_and_the_others_count(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _library()
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), scene(0)[0])
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:40])
    cv2.imwrite(str(images / "c.png"), np.full((SIZE, SIZE, 3), 120, np.uint8))
    argv = ["explain", str(folder / "plain.pt"), str(images), "--imgsz", str(SIZE), "--draws", "2", "-o", str(tmp_path / "o")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "1 files cannot be read as an image" in out and "1 images without a detection that counts" in out


def test_an_interruption_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _library()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(receptive_field, "fields", stop)
    argv = ["explain", str(folder / "plain.pt"), str(folder / "images"), "--imgsz", str(SIZE), "--draws", "2", "--limit", "1"]
    assert main([*argv, "-o", str(tmp_path / "deep" / "o")]) == 130
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.slow
def test_classic_checkpoints(classic: Classic, tmp_path: Path) -> None:  # noqa: F811
    """In a process of its own, as the host is: a fresh detector. At the head, P3's map is of a single position."""
    _library()
    code = """
    {host}
    import sys, json, torch, cv2
    from pathlib import Path
    import yolo_attn
    from yolo_attn.cli import main
    from yolo_attn.detectors.drawn import drawn_images
    from yolo_attn.detectors.opening import open_source
    from yolo_attn.inside import cam
    from yolo_attn.inside.reading import Reader, picture
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = yolo.Model(str(Path(sys.argv[1])), ch=3, nc=3)
    torch.save({"model": model, "ema": None, "epoch": -1}, "best.pt")
    Path("images").mkdir()
    for k, im in enumerate(drawn_images(2)):
        cv2.imwrite(f"images/{k}.png", im)
    reader = Reader(open_source("best.pt"))
    x = picture("", drawn_images(1)[0], (128, 128), 32).x
    found = [c for c in reader.detections(x, conf=0.0, iou=0.99) if c.index < 3 * 12 * 16][:1]
    at_head = cam.maps(reader, x, found, cam.layers_of(reader, "head"))
    backbone = cam.maps(reader, x, found, cam.layers_of(reader))
    print("LAYERS", cam.layers_of(reader), cam.layers_of(reader, "head"))
    print("PIXELS", int((at_head[0] > 0).sum()), int((backbone[0] > 0).sum()))
    argv = ["explain", "best.pt", "images", "--imgsz", "128", "--conf", "0", "--max-det", "1", "--draws", "2", "-o", "o", "--json"]
    print("CODE", main(argv), json.loads(Path("o/explain.json").read_text())["detections"])
    """
    body = textwrap.dedent(code).replace("{host}", classic.imports)
    out = classic.python(body, str(find.configs_folder() / "yolov5_se.yaml"), cwd=tmp_path).ok()
    assert "LAYERS [6, 9, 13] [21, 24, 27]" in out and "CODE 0 2" in out
    head, backbone = map(int, out.split("PIXELS ")[1].split()[:2])
    assert 0 < head <= 16 * 16 < backbone / 10  # as wide as interpolation makes it
