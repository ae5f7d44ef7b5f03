"""`yolo-attn val`: mAP of files whose detections are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from yolo_attn.cli import main
from yolo_attn.errors import DataError
from yolo_attn.evaluation import dataset, figures

BOXES = np.array([[20.0, 20, 16, 16], [44, 40, 24, 32]])  # x, y, width, height in pixels, of classes 0 and 1


def detector(path: Path, shift: float = 0.0, size: int = 64, names: tuple[str, ...] = ("a", "b"), task: str = "detect") -> Path:
    """Write a detector that finds :data:`BOXES` in whatever it is shown, moved to the right."""
    scores = np.zeros((len(names), 2))
    scores[np.arange(2) % len(names), np.arange(2)] = 0.9
    found = np.concatenate(((BOXES + np.array([shift, 0, 0, 0])).T * size / 64, scores))[None].astype(np.float32)
    found = np.pad(found, ((0, 0), (0, 0), (0, 18)))  # more candidates than numbers of each, by which its layout is told
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["low"], keepdims=0),
        helper.make_node("Mul", ["low", "zero"], ["nothing"]),
        helper.make_node("Add", ["found", "nothing"], ["output0"]),
    ]
    held = [numpy_helper.from_array(found, "found"), numpy_helper.from_array(np.float32(0), "zero")]
    given = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])]
    out = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(found.shape))]
    model = helper.make_model(helper.make_graph(nodes, "g", given, out, held), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": str(dict(enumerate(names))), "stride": "32", "task": task})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for k in range(3):
            cv2.imwrite(str(tmp_path / "images" / split / f"{k}.png"), np.full((64, 64, 3), 40 * k, np.uint8))
            rows = [f"{c} {' '.join(str(v / 64) for v in box)}" for c, box in enumerate(BOXES)]
            (tmp_path / "labels" / split / f"{k}.txt").write_text("\n".join(rows), encoding="utf-8")
    text = "train: images/train\nval: images/val\nnames: [a, b]\n"
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "my.yaml"


def test_it_measures_what_is_known(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exact boxes have a mAP of 1; those moved by two pixels pass some of the ten thresholds."""
    exact, large = detector(tmp_path / "exact.onnx"), detector(tmp_path / "large.onnx", size=128)
    moved, one = detector(tmp_path / "moved.onnx", shift=2), detector(tmp_path / "one.onnx", names=("thing",))
    argv = ["val", *map(str, (exact, moved, large, one)), "--data", str(data)]
    assert main([*argv, "--json", "--save-json", str(tmp_path / "saved.json")]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report == json.loads((tmp_path / "saved.json").read_text(encoding="utf-8"))
    first, second, third, fourth = report["rows"]
    assert first["mAP50-95"] == third["mAP50-95"] == fourth["mAP50-95"] == pytest.approx(1) and report["images"] == 3
    assert third["imgsz"] == [128, 128] and set(fourth["classes"]) == {"thing"}
    # IoU of class a 14/18, above six of the thresholds 0.5, 0.55, ...; of class b 22/26, above seven
    assert second["mAP50"] == pytest.approx(1) and second["classes"]["a"] == pytest.approx(0.6)
    assert second["classes"]["b"] == pytest.approx(0.7)
    assert main(argv) == 0
    out = capfd.readouterr().out
    assert "1.0000" in out and f"{second['mAP50-95'] - 1:+.4f}" in out and "3 images of 'val'" in out


def test_it_needs_neither_torch_nor_a_host(data: Path, tmp_path: Path, python: Any) -> None:
    code = """
    import sys
    sys.modules.update(dict.fromkeys(("torch", "ultralytics", "torchvision")))  # each as if it were not installed
    from yolo_attn.cli import main
    print(main(["val", sys.argv[1], "--data", sys.argv[2]]), main(["val", sys.argv[1], "--data", "coco8.yaml"]))
    """
    run = python(code, str(detector(tmp_path / "a.onnx")), str(data))
    assert "0 1" in run.ok() and "1.0000" in run.out and "coco8.yaml" in run.err


def test_a_difference_has_an_interval(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve images; of three there is none, and without scipy it is said why."""
    lines = [str(p) for p in sorted((tmp_path / "images" / "val").iterdir())] * 4
    (tmp_path / "twelve.txt").write_text("\r\n".join(lines), encoding="utf-8")
    (tmp_path / "12.yaml").write_text(data.read_text(encoding="utf-8").replace("images/val", "twelve.txt"), encoding="utf-8")
    label = tmp_path / "labels" / "val" / "1.txt"
    label.write_text(label.read_text(encoding="utf-8").replace(str(20 / 64), str(28 / 64)), encoding="utf-8")  # missed by both
    argv = ["val", *(str(detector(tmp_path / f"{n}.onnx", shift=s)) for n, s in (("a", 0), ("b", 0), ("c", 2))), "--data"]
    assert main([*argv, str(tmp_path / "12.yaml"), "--json"]) == 0
    first, same, moved = json.loads(capfd.readouterr().out)["rows"]
    assert "difference" not in first and same["difference"] == 0 and same["difference_95"] == [0, 0]
    low, high = moved["difference_95"]
    assert low < moved["difference"] < high < 0 and moved["difference"] == pytest.approx(moved["mAP50-95"] - first["mAP50-95"])
    assert main([*argv, str(tmp_path / "12.yaml")]) == 0
    assert f"{moved['difference']:+.4f} ({low:+.4f} to {high:+.4f})" in capfd.readouterr().out
    assert main([*argv, str(data), "--json"]) == 0
    few = json.loads(capfd.readouterr().out)["rows"][2]
    assert few["difference"] < 0 and few["difference_95"] is None
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert main([*argv, str(tmp_path / "12.yaml"), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["notes"][-1].endswith("pip install scipy") and report["rows"][2]["difference_95"] is None


def test_what_the_figures_leave_out_is_told(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As an export with --data tells it: left out as a host leaves it out, so that the rest keeps its mAP of 1."""
    images, labels = (tmp_path / kind / "val" for kind in ("images", "labels"))
    good = (labels / "0.txt").read_text(encoding="utf-8")
    for k in range(4):
        (images / f"bad{k}.jpg").write_text("no image", encoding="utf-8")
    cv2.imwrite(str(images / "tiny.png"), np.zeros((9, 64, 3), np.uint8))
    for k, text in enumerate((f"{good}\n2 0.5 0.5 0.1 0.1", f"{good}\n0 0.5 x")):
        cv2.imwrite(str(images / f"wrong{k}.png"), np.zeros((64, 64, 3), np.uint8))
        (labels / f"wrong{k}.txt").write_text(text, encoding="utf-8")
    (labels / "0.txt").write_text(f"{good}\n{good}", encoding="utf-8")  # each object twice
    data.write_text(data.read_text(encoding="utf-8").replace("[a, b]", "[a, other]"), encoding="utf-8")
    model = detector(tmp_path / "a.onnx")
    assert main(["val", str(model), "--data", str(data), "--json"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert report["images"] == 3 and report["rows"][0]["mAP50-95"] == pytest.approx(1)
    _, unreadable, small, wrong, few, names = report["notes"]
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [f"note: {n}" for n in report["notes"]]
    assert unreadable.startswith(f"4 of 10 images of 'val' of {data} cannot be read") and unreadable.endswith("bad2.jpg and 1 more")
    assert small.startswith("1 of 10 images") and small.endswith("tiny.png: sides below 10 pixels: 64x9")
    assert wrong.startswith("2 of 10 images") and "wrong0.txt, line 3: class 2, but classes are 0 to 1" in wrong
    assert "line 3: '0 0.5 x' is not all numbers" in wrong and "measured on only 3 images" in few
    assert names == f"{data} and {model} call classes otherwise, and they are compared by number: 1 is other and b"


def test_images_without_labels_and_files_without_names(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels" / "val" / "1.txt").unlink()
    plain, three = detector(tmp_path / "plain.onnx"), detector(tmp_path / "three.onnx", names=("a", "b", "c"))
    for file in (plain, three):
        model = onnx.load(file)
        del model.metadata_props[:]
        onnx.save(model, file)
    assert main(["val", str(plain), "--data", str(data), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["rows"][0]["mAP50"] < 1 and report["images"] == 3  # what is found in the image without labels is wrong
    assert any("1 of 3 images" in n and "no label file" in n and n.endswith("1.png") for n in report["notes"])
    assert any(f"{plain}: tells no class names" in n for n in report["notes"])
    assert main(["val", str(three), "--data", str(data)]) == 1
    assert "detects 3 classes, and the data set has 2" in capfd.readouterr().err


def test_classes_and_images_as_they_are_written(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Classes out of order and numbered by text, two of one name; a link to a folder, hidden files, and a list of nothing."""
    images, labels = tmp_path / "images" / "val", tmp_path / "labels"
    (tmp_path / "more").symlink_to(images, target_is_directory=True)
    (images / "._0.png").write_text("no image", encoding="utf-8")
    (images / "again").symlink_to(tmp_path / "images" / "train", target_is_directory=True)
    (labels / "val" / "again").symlink_to(labels / "train", target_is_directory=True)
    model, twins = detector(tmp_path / "a.onnx"), detector(tmp_path / "b.onnx", names=("a", "a"))
    data.write_text('train: images/train\nval: images/val\nnames: {"1": b, "0": a}\n', encoding="utf-8")
    assert main(["val", str(model), str(twins), "--data", str(data), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["images"] == 6 and list(report["rows"][0]["classes"]) == ["a", "b"] and not any("cannot be read" in n for n in report["notes"])
    assert [n for n in report["notes"] if "otherwise" in n] == [f"{data} and {twins} call classes otherwise, and they are compared by number: 1 is b and a"]
    data.write_text("train: images/train\nval: images/val\nnames: [a, a]\n", encoding="utf-8")
    assert main(["val", str(twins), "--data", str(data), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rows"][0]["classes"] == pytest.approx({"a (0)": 1, "a (1)": 1})
    (tmp_path / "list.txt").write_text("images\\val\\0.png\n", encoding="utf-8")
    data.write_text("train: images/train\nval: list.txt\nnc: 2\n", encoding="utf-8")
    assert main(["val", str(model), "--data", str(data)]) == 1
    assert "'val:' lists images of which none exists, the first is images\\val\\0.png" in capfd.readouterr().err


@pytest.mark.parametrize(("where", "entry"), [("", "../images/val"), ("path: .\n", "images/val"), ("path: .\n", "[images/val]")])
def test_one_split_is_enough_on_the_machine_that_runs_the_file(
    where: str, entry: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Training images need not be there; paths as Roboflow writes them, and as they are meant: from the YAML's folder."""
    (tmp_path / "images" / "train").rename(tmp_path / "elsewhere")
    data.write_text(f"{where}train: images/train\nval: {entry}\nnames: [a, b]\n", encoding="utf-8")
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.chdir(aside)
    assert main(["val", str(detector(tmp_path / "a.onnx")), "--data", str(data), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["images"] == 3
    (tmp_path / "elsewhere").rename(tmp_path / "images" / "train")
    if where:  # which trains with a host, that looks in the working directory
        with pytest.raises(DataError, match=f"not looked for in the YAML's folder .* the whole path: {tmp_path}$"):
            dataset.check(str(data))
        monkeypatch.chdir(tmp_path)
    assert dataset.check(data.name if where else str(data)) is False


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["b.onnx"], 1, "has 2 classes, and b.onnx detects 3"),
        (["c.onnx"], 2, "c.onnx: is a model for classify"),
        (["a.onnx", "--imgsz", "96"], 2, "a.onnx: accepts 64x64 only, but --imgsz is 96x96"),
        (["a.onnx", "--split", "test"], 1, "has no 'test:'"),
        (["a.onnx", "--threads", "-1"], 2, "--threads must be at least 0"),
        (["a.pt"], 1, "yolo-attn export a.pt"),
        (["a.onnx", "--save-json", "nowhere/a.json"], 1, "nowhere/a.json: cannot be written: there is no folder nowhere"),
    ],
)
def test_what_it_cannot_measure(
    argv: list[str], code: int, told: str, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data.parent)
    detector(Path("a.onnx"))
    detector(Path("b.onnx"), names=("a", "b", "c"))
    detector(Path("c.onnx"), task="classify")
    Path("a.pt").write_bytes(b"")
    assert main(["val", *argv, "--data", "my.yaml"]) == code
    assert told in capfd.readouterr().err


def test_labels_that_are_missing_and_a_download_that_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in (tmp_path / "labels" / "val").iterdir():
        file.unlink()
    assert main(["val", str(detector(tmp_path / "a.onnx")), "--data", str(data)]) == 1
    assert "'val:' has 3 images and no labels: looked for" in capfd.readouterr().err
    from ultralytics.data import utils

    def refuses(data: str) -> None:
        raise ConnectionError("Download failure for https://nowhere")

    monkeypatch.setattr(utils, "check_det_dataset", refuses)
    with pytest.raises(DataError, match="coco8.yaml: Download failure"):
        figures.split_of("coco8.yaml", name="val")
