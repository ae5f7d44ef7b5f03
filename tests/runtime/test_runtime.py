"""Detection from an ONNX file alone: equal to the host's, without torch; every head's layout; every mistake."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from busy import make_busy
from torch import nn

from yolo_attn.cli import main
from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.errors import DataError, FileError, UsageError
from yolo_attn.export.proof import compare_detections, largest_difference
from yolo_attn.export.single import export
from yolo_attn.runtime import bench
from yolo_attn.runtime.bench import measure
from yolo_attn.runtime.boxes import layout_of, nms, suppress
from yolo_attn.runtime.image import annotate, blob, letterbox, unletterbox
from yolo_attn.runtime.output import free_folder
from yolo_attn.runtime.predict import Clock, predict
from yolo_attn.runtime.session import Detector, describe
from yolo_attn.runtime.source import Frame, Source
from yolo_attn.runtime.tasks import Seen


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A static and a dynamic export of one detector that finds much, and pictures of odd sizes."""
    folder = tmp_path_factory.mktemp("runtime")
    torch.manual_seed(0)
    source = open_source("yolov5n_eca.yaml")
    make_busy(source.model)
    source.model.names = {i: f"thing{i}" for i in range(80)}
    source.handle.save(folder / "best.pt")
    out = {}
    for name, dynamic in (("static", False), ("dynamic", True)):
        out[name] = folder / f"{name}.onnx"
        export(folder / "best.pt", imgsz=[96, 128], dynamic=dynamic, output=out[name], log=lambda line: None)
    (folder / "pictures").mkdir()
    for i, (im, size) in enumerate(zip(drawn_images(3, seed=5), ((640, 480), (301, 453), (97, 640)))):
        cv2.imwrite(str(folder / "pictures" / f"{i}.png"), im[: size[0], : size[1]])
    out["pictures"] = folder / "pictures"
    return out


def pictures(files: dict[str, Path]) -> list[np.ndarray]:
    return [cv2.imread(str(p)) for p in sorted(files["pictures"].iterdir())]


# --- equal to the host ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_equal_to_the_hosts_predict(files: dict[str, Path], name: str) -> None:
    from ultralytics import YOLO

    host, ours = YOLO(files[name], task="detect"), Detector(files[name])
    found = 0
    for image in pictures(files):
        for options in ({}, {"conf": 0.4, "iou": 0.45}, {"classes": [3, 12, 24]}):
            want = host.predict(image, imgsz=[96, 128], verbose=False, **options)[0].boxes.data.numpy()
            (got,) = predict(ours, [image], size=(96, 128), **options)
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, atol=2e-2)
            found += len(got)
    assert found > 100


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_opencv_finds_the_same(files: dict[str, Path], name: str) -> None:
    ort, cv = Detector(files[name]), Detector(files[name], runtime="opencv")
    for image in pictures(files):
        x = blob([letterbox(image, (96, 128))[0]])
        a, b = ort(x), cv(x)
        assert max(largest_difference(a, b, "anchor-free").values()) <= 1e-4
        same = compare_detections(a[0], b[0], "anchor-free", tolerance=1e-4)
        assert same["compared"] > 10 and same["missing"] == same["extra"] == 0
        counts = [len(predict(d, [image], size=(96, 128))[0]) for d in (ort, cv)]
        # The runtimes' last bits can tip a pair of boxes at NMS's limit, among more than a hundred of a random model.
        assert abs(counts[0] - counts[1]) <= same["ties"] + 0.02 * counts[0]


def test_a_batch_is_the_same_as_one_by_one(files: dict[str, Path]) -> None:
    detector = Detector(files["dynamic"])
    images = [im[:97, :453] for im in pictures(files)]
    together = predict(detector, images, size=(64, 128))
    static = Detector(files["static"])  # of batch 1: runs them one after the other
    for image, got in zip(images, together):
        fitted = letterbox(image, (64, 128))[0]
        assert fitted.shape == (64, 128, 3) and len(got)
    apart = [predict(static, [im])[0] for im in images]
    for got, want in zip(predict(static, images), apart):
        np.testing.assert_array_equal(got, want)


# --- the arithmetic -------------------------------------------------------------------------------------------------


def test_a_box_survives_letterbox_and_back() -> None:
    for h, w in ((480, 640), (97, 640), (33, 7), (640, 640)):
        for rectangular in (False, True):
            image, fit = letterbox(np.zeros((h, w, 3), np.uint8), (96, 160), rectangular=rectangular)
            assert image.shape[0] % 32 == image.shape[1] % 32 == 0 and image.shape[0] <= 96 and image.shape[1] <= 160
            box = np.array([[0.1 * w, 0.2 * h, 0.7 * w, 0.9 * h]], np.float32)
            there = box * np.array([fit.gain_x, fit.gain_y] * 2)
            there = there + np.array([fit.left, fit.top] * 2)
            np.testing.assert_allclose(unletterbox(there, fit), box, atol=1e-3)


def test_nms_against_torchvision() -> None:
    from torchvision.ops import nms as reference

    rng = np.random.default_rng(0)
    for n in (0, 1, 300):
        corner = rng.uniform(0, 200, (n, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(5, 80, (n, 2))), 1).astype(np.float32)
        scores = rng.random(n).astype(np.float32)
        for iou in (0.2, 0.5, 0.7):
            want = reference(torch.from_numpy(boxes), torch.from_numpy(scores), iou).numpy()
            np.testing.assert_array_equal(nms(boxes, scores, iou), want)


def test_the_three_layouts_say_the_same() -> None:
    """One scene written as each head writes it: two boxes of class 1, one of them suppressed, one of class 0."""
    xywh = np.array([[50, 50, 20, 20], [51, 50, 20, 20], [100, 80, 30, 10]], np.float32)
    scores = np.array([[0, 0.9], [0, 0.8], [0.7, 0]], np.float32)
    free = np.concatenate((xywh, scores), 1).T
    objectness = np.array([[0.95], [0.9], [0.8]], np.float32)
    based = np.concatenate((xywh, objectness, scores / objectness), 1)
    final = np.array([[40, 40, 60, 60, 0.9, 1], [85, 75, 115, 85, 0.7, 0], [0] * 6], np.float32)
    for output, layout in ((free, "anchor-free"), (based, "anchor-based"), (final, "final")):
        np.testing.assert_allclose(suppress(output, layout, conf=0.3), final[:2], rtol=1e-5)
    assert len(suppress(free, "anchor-free", conf=0.3, iou=0.99)) == 3
    assert suppress(free, "anchor-free", classes=[0])[:, 5].tolist() == [0]
    assert len(suppress(free, "anchor-free", max_det=1)) == 1


@pytest.mark.parametrize(
    ("shape", "classes", "final", "layout"),
    [
        ((1, 84, 8400), 80, False, "anchor-free"),
        ((1, 25200, 85), 80, False, "anchor-based"),
        ((1, 300, 6), 80, True, "final"),
        ((1, 5, 8400), 1, False, "anchor-free"),
        ((1, 25200, 6), 1, False, "anchor-based"),
        ((1, 84, 8400), None, False, "anchor-free"),
        ((1, 25200, 85), None, False, "anchor-based"),
        ((1, 300, 6), None, False, "final"),
        ((1, 1000), None, False, None),
        ((1, 32, 160, 160), None, False, None),
        ((1, 70, 8400), 80, False, None),
    ],
)
def test_a_layout_is_told_by_its_shape(shape: Any, classes: int | None, final: bool, layout: str | None) -> None:
    assert layout_of(shape, classes, final) == layout


# --- the command ----------------------------------------------------------------------------------------------------


def test_it_imports_neither_torch_nor_a_host(python: Any, files: dict[str, Path], tmp_path: Path) -> None:
    out = python(
        """
        import sys
        from yolo_attn.cli import main
        code = main(["detect", sys.argv[1], "--source", sys.argv[2], "--save-txt", "--save-json", "--out", "found"])
        code += main(["bench", sys.argv[1], "--rounds", "2", "--warmup", "1"])
        heavy = sorted({"torch", "ultralytics", "torchvision", "matplotlib"} & set(sys.modules))
        print("heavy", code, heavy)
        """,
        str(files["static"]), str(files["pictures"]),
    ).ok()  # fmt: skip
    assert "heavy 0 []" in out and "thing" in out and "Median ms" in out
    entries = json.loads((tmp_path / "found/detections.json").read_text())
    assert [Path(e["image"]).name for e in entries] == ["0.png", "1.png", "2.png"]
    (want,) = predict(Detector(files["static"]), [pictures(files)[1]])
    assert len(entries[1]["detections"]) == len(want)
    assert entries[1]["detections"][0]["confidence"] == pytest.approx(float(want[0, 4]), abs=1e-4)
    lines = (tmp_path / "found/labels/1.txt").read_text().splitlines()
    cls, x, _, w, _, conf = map(float, lines[0].split())
    h0, w0 = entries[1]["height"], entries[1]["width"]
    assert (h0, w0) == (301, 453) and len(lines) == len(want) and cls == want[0, 5]
    assert x * w0 == pytest.approx((want[0, 0] + want[0, 2]) / 2, abs=0.01)
    assert w * w0 == pytest.approx(want[0, 2] - want[0, 0], abs=0.01) and conf == pytest.approx(want[0, 4], abs=1e-4)
    drawn = cv2.imread(str(tmp_path / "found/1.png"))
    assert drawn.shape == (301, 453, 3) and (drawn != pictures(files)[1]).any()


def test_a_video_and_an_unreadable_picture(files: dict[str, Path], cli: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    writer = cv2.VideoWriter(str(tmp_path / "in/film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for im in drawn_images(3):
        writer.write(cv2.resize(im, (320, 240)))
    writer.release()
    (tmp_path / "in/broken.jpg").write_bytes(b"no picture")
    done = cli("detect", str(files["static"]), "--source", "in", "--save-txt", "--out", "o", "--classes", "thing24")
    assert "broken.jpg: cannot be read" in done.err and "frame 3/3" in done.ok()
    film = cv2.VideoCapture(str(tmp_path / "o/film.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert {line.split()[0] for p in (tmp_path / "o/labels").iterdir() for line in p.open()} <= {"24"}


def test_sources(files: dict[str, Path], tmp_path: Path) -> None:
    folder = files["pictures"]
    (tmp_path / "list.txt").write_text(f"{folder / '2.png'}\n{folder / '0.png'}\n")
    assert [f.path.name for f in Source(str(tmp_path / "list.txt"))] == ["2.png", "0.png"]
    assert [f.path.name for f in Source(str(folder / "[01].png"))] == ["0.png", "1.png"]
    (tmp_path / "empty").mkdir()
    for source, words in (("nowhere", "not found"), (str(tmp_path / "empty"), "no images"), ("x*.jpg", "matches")):
        with pytest.raises(DataError, match=words):
            Source(source)
    with pytest.raises(DataError, match=r"test_runtime\.py: is neither"):
        Source(__file__)
    both = Source(str(folder / "2.png"), str(folder / "[01].png"))
    assert [f.path.name for f in both] == ["2.png", "0.png", "1.png"]
    (tmp_path / "表.txt").write_text("\ufeff路径 空格/图 一.png\n", encoding="utf-8")  # as a Windows editor saves it
    (tmp_path / "路径 空格").mkdir()
    (tmp_path / "路径 空格" / "图 一.png").write_bytes((folder / "0.png").read_bytes())
    assert [f.image.shape for f in Source(str(tmp_path / "表.txt"))] == [(480, 480, 3)]
    (tmp_path / "gbk.txt").write_bytes("公交.png".encode("gbk"))
    with pytest.raises(DataError, match="UTF-8"):
        Source(str(tmp_path / "gbk.txt"))
    for stream in ("97", "file:///nowhere.avi"):
        with pytest.raises(DataError, match="cannot be opened"):
            next(iter(Source(stream)))
    assert free_folder(folder) == folder.with_name("pictures-2")


def test_pictures_of_every_depth_and_kind(tmp_path: Path) -> None:
    """Grey, 16 bits, alpha, palette and a rotation in the EXIF all give what the host's reader gives: 8-bit BGR."""
    from PIL import Image

    image = drawn_images(1)[0][:40, :60]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "deep.png"), image.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "deep.tif"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "alpha.png"), cv2.cvtColor(image, cv2.COLOR_BGR2BGRA))
    upright = Image.fromarray(image[..., ::-1].copy())
    exif = upright.getexif()
    exif[0x112] = 6  # the camera was turned: show it a quarter clockwise
    upright.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found = {f.path.name: f.image for f in Source(str(tmp_path))}
    assert len(found) == 5
    for name, got in found.items():
        assert got.shape == (40, 60, 3) and got.dtype == np.uint8, name
        want = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if name in ("grey.png", "deep.tif") else image
        assert np.abs(got.astype(int) - want).mean() < (8 if name == "turned.jpg" else 1), name


def test_nothing_is_ever_overwritten(files: dict[str, Path], cli: Any, tmp_path: Path) -> None:
    """Neither the pictures, nor labels beside them, nor one result by another's of the same name."""
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "x.png").write_bytes((files["pictures"] / "0.png").read_bytes())
    (tmp_path / "in/a/X.jpg").write_bytes(cv2.imencode(".jpg", drawn_images(1)[0])[1].tobytes())
    base = ("detect", str(files["static"]), "--save-txt", "--source")
    assert "not empty" in cli(*base, "in/a", "--out", "in/a").mistake()
    cli(*base, "in/**/*.*", "--out", "o").ok()
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["X.jpg", "labels", "x-2.png", "x-3.png"]
    assert sorted(p.name for p in (tmp_path / "o/labels").iterdir()) == ["X.txt", "x-2.txt", "x-3.txt"]
    assert (tmp_path / "in/a/x.png").read_bytes() == (files["pictures"] / "0.png").read_bytes()


def test_chinese_names_of_files_and_classes(files: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "模型 一"
    folder.mkdir()
    (folder / "模型.onnx").write_bytes(files["static"].read_bytes())
    image = pictures(files)[0]
    for runtime in ("onnxruntime", "opencv"):
        assert len(predict(Detector(folder / "模型.onnx", runtime=runtime), [image])[0])
    box = np.array([[5, 60, 300, 200, 0.9, 0]], np.float32)
    number = annotate(image, box, {0: "class 0"})
    if int(cv2.__version__.split(".")[0]) >= 5:
        assert (annotate(image, box, {0: "公交车"}) != annotate(image, box, {0: "???"})).any()
    monkeypatch.setattr(cv2, "__version__", "4.12.0")  # draws question marks for the same
    np.testing.assert_array_equal(annotate(image, box, {0: "公交车"}), number)
    assert (annotate(image, box, {0: "bus"}) != number).any()


def test_a_runtime_that_is_missing_or_refuses(files: dict[str, Path], python: Any) -> None:
    out = python(
        """
        import sys
        class Missing:
            names = ()
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in self.names:
                    raise ImportError(f"no {name}")
        sys.meta_path.insert(0, Missing())
        from yolo_attn.cli import main
        for names, runtime in ((("onnxruntime",), "onnxruntime"), (("onnxruntime",), "opencv"), (("onnx",), "opencv"),
                               (("onnx",), "onnxruntime")):
            Missing.names = ("torch", "ultralytics", "torchvision", *names)
            print(names, runtime, main(["detect", sys.argv[1], "--source", sys.argv[2], "--no-save", "--runtime", runtime]))
            for name in [n for n in sys.modules if n.split(".")[0] in ("onnx", "onnxruntime")]:
                del sys.modules[name]
        """,
        str(files["static"]), str(files["pictures"] / "0.png"),
    )  # fmt: skip
    codes = [line.rsplit(" ", 1) for line in out.ok().splitlines() if line.startswith("(")]
    assert codes == [["('onnxruntime',) onnxruntime", "1"], ["('onnxruntime',) opencv", "0"],
                     ["('onnx',) opencv", "1"], ["('onnx',) onnxruntime", "0"]]  # fmt: skip
    assert "onnxruntime is not installed" in out.err and "onnx is not installed" in out.err
    with pytest.raises(FileError, match="cannot run it on"):
        Detector(files["static"])(np.zeros((1, 3, 33, 33), np.float32))


def test_files_that_are_no_detector(files: dict[str, Path], tmp_path: Path) -> None:
    class Ends(nn.Module):
        def __init__(self, channels: int, dims: int) -> None:
            super().__init__()
            self.conv, self.dims = nn.Conv2d(channels, 4, 3), dims

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y.mean((2, 3)) if self.dims == 2 else y.flatten(2) if self.dims == 3 else y

    def message(path: Path, runtime: str = "onnxruntime") -> str:
        with pytest.raises((FileError, UsageError)) as error:
            Detector(path, runtime=runtime)
        return str(error.value)

    for channels, dims, words in ((3, 2, "not a detector: its output"), (3, 3, "not a detector"), (3, 4, "not a detector"),
                                  (1, 3, "not a detector: its input")):  # fmt: skip
        path = tmp_path / f"{channels}{dims}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(Ends(channels, dims), (torch.zeros(1, channels, 32, 32),), str(path), dynamo=False)
        for runtime in ("onnxruntime", "opencv"):
            assert words in message(path, runtime)
    (tmp_path / "cut.onnx").write_bytes(files["static"].read_bytes()[:50_000])
    (tmp_path / "text.onnx").write_text("no model")
    for name, runtime in (("cut", "onnxruntime"), ("cut", "opencv"), ("text", "onnxruntime"), ("text", "opencv")):
        assert f"{name}.onnx" in message(tmp_path / f"{name}.onnx", runtime)
    assert "not found" in message(tmp_path / "none.onnx") and "by its name" in message(files["pictures"] / "0.png")
    assert "no runtime" in message(files["static"], "tflite")


def test_quiet_leaves_the_line_of_each_picture_out(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from yolo_attn.cli import main

    argv = ["detect", str(files["static"]), "--source", str(files["pictures"]), "--no-save"]
    assert main(argv) == 0
    told = capsys.readouterr().out.splitlines()
    count = len(list(files["pictures"].glob("*.png")))
    assert len(told) == count + 1 and str(files["pictures"] / "0.png") in told[0]
    assert main([*argv, "--quiet"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"boxes in {count} images" in line


def test_nms_inside(files: dict[str, Path], tmp_path: Path, cli: Any) -> None:
    path = tmp_path / "nms.onnx"
    export(files["static"].with_name("best.pt"), imgsz=64, nms=True, output=path, log=lambda line: None)
    assert Detector(path).layout == "final" and len(predict(Detector(path), pictures(files))[0]) > 5
    with pytest.raises(FileError, match=r"nms\.onnx: .*NMS.*--nms"):
        Detector(path, runtime="opencv")
    base = ("detect", str(path), "--source", str(files["pictures"]), "--no-save")
    for words, told in (((), 0), (("--iou", "0.5"), 1), (("--conf", "0.1"), 1), (("--conf", "0.5"), 0)):
        run = cli(*base, *words, "--out", str(tmp_path / "_".join(("out", *words))))
        run.ok()
        assert run.err.count("--iou has no effect") == told


def test_options_of_the_command(files: dict[str, Path], cli: Any) -> None:
    base = ("detect", str(files["static"]), "--source", str(files["pictures"]))
    assert "96x128 only" in cli(*base, "--imgsz", "64").mistake()
    assert "no class 'dog'" in cli(*base, "--classes", "dog").mistake()
    assert "between 0 and 1" in cli(*base, "--conf", "25").mistake()
    assert "no provider" in cli(*base, "--provider", "quantum").mistake()


def test_names_do_not_hide_what_small_images_show() -> None:
    image, box = np.zeros((160, 160, 3), np.uint8), np.array([[40, 60, 120, 120, 0.9, 0]], np.float32)
    assert (annotate(image, box, {0: "triangle"}, frames=False) != image).any(2).mean() < 0.05
    assert (annotate(image, box, {0: "triangle"}) != image).any(2)[60:63, 40].any()


def test_bench_needs_no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board has a runtime alone; the number of nodes is left out there."""
    from yolo_attn.commands import bench

    monkeypatch.setitem(sys.modules, "onnx", None)
    assert bench._nodes(Path("a.onnx")) is None


def test_a_ratio_is_that_of_the_times_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the networks move themselves: the second takes three times as long, in a machine that grows slower."""
    now, ran = [0.0], []

    def network(number: int, takes: float) -> Any:
        def run(x: np.ndarray) -> None:
            ran.append(number)
            now[0] += takes * (1 + len(ran) // 2)

        return run

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    x = np.zeros((1, 3, 32, 32), np.float32)
    first, second = measure([network(0, 1), network(1, 3)], [x, x], rounds=4, warmup=1)
    assert ran == [1, 0, 0, 1, 1, 0, 0, 1, 1, 0] and len(first.seconds) == 4
    assert first.seconds.min() < first.seconds.max() and first.ratio == 1 and 2 < second.ratio < 4


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["bench", "a.onnx", "--format", "ncnn"], 2, "--format is what checkpoints and YAMLs are exported to, and a.onnx is a file"),
        (["bench", "a.onnx", "--save-json", "nowhere/a.json"], 1, "nowhere/a.json: cannot be written: there is no folder nowhere"),
        (["detect", "a.onnx", "--source", ""], 1, "--source is empty"),
    ],
)
def test_what_is_asked_for_in_vain(
    argv: list[str], code: int, told: str, files: dict[str, Path], tmp_path: Path, monkeypatch: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(files["static"].read_bytes())
    assert main(argv) == code
    assert told in capfd.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_a_full_disk_leaves_no_empty_folder(tmp_path: Path, monkeypatch: Any) -> None:
    """Of its own; a folder that was there stays."""
    from yolo_attn.runtime import output

    def full(*args: Any, **options: Any) -> None:
        raise FileError("No space left on device")

    monkeypatch.setattr(output, "write_bytes", full)
    frame, found = Frame(Path("a.png"), None, np.zeros((8, 8, 3), np.uint8)), Seen(np.zeros((0, 6), np.float32))
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(FileError, match="No space left"), output.Writer(
            tmp_path / name, {}, pictures=True, text=True, as_json=False
        ) as writer:
            writer.add(frame, found)
    assert [p.name for p in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())


@pytest.mark.slow
def test_bench_takes_turns_and_compares(files: dict[str, Path], cli: Any, tmp_path: Path) -> None:
    clock = Clock()
    detectors = [Detector(files["static"], threads=1, spin=False) for _ in range(2)]
    predict(detectors[0], pictures(files)[:1], clock=clock)
    assert set(clock.medians()) == {"letterbox", "network", "nms"}
    x = np.zeros((1, 3, 96, 128), np.float32)
    first, second = measure(detectors, [x, x], rounds=5, warmup=1)
    assert first.ratio == 1 and len(second.seconds) == 5 and second.ratio == np.median(second.seconds / first.seconds)
    out = cli("bench", str(files["static"]), "yolov5n.yaml", "--imgsz", "96", "128", "--rounds", "3", "--threads", "1",
              "--save-json", "b.json").ok()  # fmt: skip
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [r["input"] for r in rows] == [[1, 3, 96, 128]] * 2 and rows[0]["ratio"] == 1 and "ratio" in out
    assert rows[0]["nodes"] > rows[1]["nodes"] > 100 and describe(files["static"])[1] == [1, 3, 96, 128]
    out = cli("bench", str(files["dynamic"]), "--imgsz", "50", "--rounds", "1").ok()
    assert "rounded up to 64x64" in out and "1x3x64x64" in out
    assert "batch of 1 only" in cli("bench", str(files["static"]), "--batch", "4").mistake()


def test_an_int8_file_opens_whose_convolutions_share_their_weights(tmp_path):
    """onnxruntime refuses it with the exact kernels, which are asked for first: EMAttention's two strips are such."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from yolo_attn.runtime.engines.network import Options
    from yolo_attn.runtime.engines.onnxruntime import open_network

    rng = np.random.default_rng(0)
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 8, 8]) for n in "xz"]
    nodes = [helper.make_node("Conv", [a, "w"], [b], name=b) for a, b in ("xy", "yz")]
    weight = numpy_helper.from_array(rng.normal(size=(4, 4, 1, 1)).astype("f"), "w")
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")

    class Reader(CalibrationDataReader):
        left = iter([{"x": rng.normal(size=(1, 4, 8, 8)).astype("f")}])

        def get_next(self):
            return next(self.left, None)

    quantize_static(
        str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), Reader(), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    assert open_network(tmp_path / "b.onnx", Options()).run(np.ones((1, 4, 8, 8), "f"))[0].shape == (1, 4, 8, 8)
