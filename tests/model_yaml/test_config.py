"""Finding, reading and checking model YAMLs, through the host wherever a mistake can be made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from yolo_attn.errors import ConfigError, RowError, UnknownModuleError
from yolo_attn.model_yaml import find, load
from yolo_attn.model_yaml.misread import misread

BASE = (find.configs_folder() / "yolov5_se.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolov5s_se", ("yolov5_se", "s")),
        ("yolov5_se", ("yolov5_se", "")),
        ("yolov5s6_se", ("yolov5-p6_se", "s")),
        ("yolov5x-p6_se", ("yolov5-p6_se", "x")),
        ("yolov5-p6_se", ("yolov5-p6_se", "")),
        ("yolov5l", ("yolov5", "l")),
        ("yolov5_simam", ("yolov5_simam", "")),
        ("yolo11m_se", ("yolo11_se", "m")),
        ("yolov8n-seg_eca", ("yolov8-seg_eca", "n")),
        ("my_model", ("my_model", "")),
        ("seresnet50s", ("seresnet50s", "")),
    ],
)
def test_split_scale(name: str, expected: tuple[str, str]) -> None:
    assert find.split_scale(name) == expected


def test_the_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find.locate("yolov5s_se.yaml") == find.configs_folder() / "yolov5_se.yaml"
    Path("yolov5_se.yaml").write_text(BASE, encoding="utf-8")
    assert find.locate("yolov5s_se.yaml") == Path("yolov5_se.yaml")
    Path("yolov5s_se.yaml").write_text(BASE, encoding="utf-8")
    assert find.locate("yolov5s_se.yaml") == Path("yolov5s_se.yaml")
    assert find.locate("no_such_thing.yaml") is None


def test_the_letter_is_the_scale() -> None:
    widths = {s: DetectionModel(f"yolov5{s}_se.yaml", verbose=False).model[0].conv.out_channels for s in "nsm"}
    assert widths == {"n": 16, "s": 32, "m": 48}


def test_the_hosts_own_names_still_work() -> None:
    assert yaml_model_load("yolov8n.yaml")["scale"] == "n"
    with pytest.raises(FileNotFoundError):
        yaml_model_load("no_such_model.yaml")


TUTORIAL = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
  - [116,90, 156,198, 373,326]
backbone:
  [[-1, 1, Conv, [64, 6, 2, 2]],
   [-1, 1, Conv, [128, 3, 2]],
   [-1, 3, C3, [128]],
   [-1, 1, Conv, [256, 3, 2]],
   [-1, 6, C3, [256]],
   [-1, 1, Conv, [512, 3, 2]],
   [-1, 9, C3, [512]],
   [-1, 1, Conv, [1024, 3, 2]],
   [-1, 3, C3, [1024]],
   [-1, 1, SPPF, [1024, 5]],
  ]
head:
  [[-1, 1, Conv, [512, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 6], 1, Concat, [1]],
   [-1, 3, C3, [512, False]],
   [-1, 1, Conv, [256, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 4], 1, Concat, [1]],
   [-1, 3, C3, [256, False]],
   [-1, 1, Conv, [256, 3, 2]],
   [[-1, 14], 1, Concat, [1]],
   [-1, 3, C3, [512, False]],
   [-1, 1, Conv, [512, 3, 2]],
   [[-1, 10], 1, Concat, [1]],
   [-1, 3, C3, [1024, False]],
   [-1, 1, SEAttention, [1024]],
   [[17, 20, 24], 1, Detect, [nc, anchors]],
  ]
"""


def test_the_tutorials_yaml_builds_unchanged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Classic dialect, unscaled width: the gate gets 512 channels, the anchors are dropped and that is said."""
    path = tmp_path / "yolov5s_SE.yaml"
    path.write_text(TUTORIAL, encoding="utf-8")
    with caplog.at_level("INFO", "yolo_attn"):
        model = YOLO(str(path)).model
    assert model.model[24].fc1.in_channels == 512
    assert sum(p.numel() for p in model.parameters()) == 9_185_920  # 9,153,152 of YOLOv5su + 2 * 512 * 32
    assert "anchors dropped" in caplog.text
    boxes = model.eval()(torch.rand(1, 3, 64, 64))[0]
    assert boxes.shape == (1, 84, 84)
    assert torch.isfinite(boxes).all()


@pytest.mark.parametrize(
    ("old", "new", "error", "told"),
    [
        ("SEAttention, []", "SEAtention, []", UnknownModuleError, r"row 3 \(backbone\).*Did you mean 'SEAttention'"),
        ("SEAttention, []", "SEAttention, [1024]", RowError, r"row 3.*1024 channels, 512 after.*but 64 arrive"),
        ("SEAttention, []", "SEAttention, [{reductoin: 8}]", RowError, "row 3.*reductoin.*reduction=16"),
        ("SEAttention, []", "SEAttention, [{reduction: 0}]", RowError, "row 3.*cannot be built.*at least 1"),
        ("SEAttention, []", "SEAttention, 64", ConfigError, "row 3.*must be a list"),
        ("[-1, 1, SEAttention", "[9, 1, SEAttention", ConfigError, "row 3.*'from' is 9.*only rows 0 to 2"),
        ("[-1, 1, SEAttention", "[-7, 1, SEAttention", ConfigError, "row 3.*'from' is -7.*before the first row"),
        ("[-1, 1, SEAttention", "[-1, 0, SEAttention", ConfigError, "row 3.*repeats.*0"),
        (
            "[-1, 1, SEAttention",
            "[[-1, 1], 1, SEAttention",
            RowError,
            "row 3.*takes one input.*names 2|row 3.*inputs have",
        ),
        ("[-1, 1, SEAttention, []]", "[-1, 1, SEAttention]", ConfigError, r"row 3.*\[from, number, module, args\]"),
        ("  - [-1, 1, SEAttention", "\t- [-1, 1, SEAttention", ConfigError, "indented with a tab"),
        ("backbone:", "spine:", ConfigError, "'backbone'"),
        (BASE, "", ConfigError, "is empty"),
        (BASE, "- 1\n- 2\n", ConfigError, "not a mapping"),
        (BASE, "nc: [1, 2\n", ConfigError, "line .* is not valid YAML"),
        ("nc: 80", "nc:\t80", ConfigError, "line 5: has a tab"),
        ("head:", "nc: 3\nhead:", ConfigError, "'nc' .*twice.* line 5"),
        ("nc: 80", "nc: eighty", ConfigError, "'nc' must be the number of classes, got 'eighty'"),
        ("nc: 80", "nc: 0", ConfigError, "'nc' must be the number of classes, got 0"),
        ("nc: 80", "", ConfigError, "'nc' must be the number of classes, but there is none"),
        ("s: [0.33", "s: [third", ConfigError, "scale 's' must be .depth, width, max_channels., got .'third'"),
        ("s: [0.33, 0.50, 1024]", "s: small", ConfigError, "scale 's' must be .*, got 'small'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, error: type[Exception], told: str) -> None:
    """Each ends in an error of the kit that names the file and, where there is one, the row."""
    path = tmp_path / "yolov5s_mine.yaml"
    path.write_text(BASE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(error, match=f"(?s)yolov5s_mine.*{told}"):
        DetectionModel(str(path), verbose=False)


@pytest.mark.parametrize("form", ["utf-8-sig", "crlf"])
def test_what_windows_editors_write(tmp_path: Path, form: str) -> None:
    """A byte-order mark and carriage returns are no mistakes."""
    path = tmp_path / "yolov5n_mine.yaml"
    path.write_bytes(BASE.encode(form) if form != "crlf" else BASE.replace("\n", "\r\n").encode())
    assert load.read(path) == load.read(find.configs_folder() / "yolov5_se.yaml")


PLAIN = (find.configs_folder() / "yolov5.yaml").read_text(encoding="utf-8")


def test_a_fourth_number_in_scales_is_ignored_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As several forks write it."""
    file = tmp_path / "wild5n.yaml"
    file.write_text(PLAIN.replace("1024]\n", "1024, 0]\n"), encoding="utf-8")
    with caplog.at_level("INFO", logger="yolo_attn"):
        d = yaml_model_load(str(file))
    said = [m for m in caplog.messages if "fourth" in m]
    assert len(said) == 1 and said[0].startswith(f"{file}: ") and "ignored" in said[0] and "max_channels" in said[0]
    assert d["scales"] == load.load_ultralytics("yolov5n.yaml", find.require("yolov5n.yaml"))["scales"]
    assert load.load_classic(file, file)["width_multiple"] == 0.25
    file.write_text(PLAIN.replace("1024]\n", "1024, 0, 1]\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"scale 'n' must be"):
        yaml_model_load(str(file))


def by_hand(count: int, *, before: str = "SPPF") -> str:
    """YOLOv5 with rows put in by hand in front of a module, and no number shifted."""
    at = PLAIN.index(f"  - [-1, 1, {before}")
    return PLAIN[:at] + "  - [-1, 1, SEAttention, []]\n" * count + PLAIN[at:]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (by_hand(1), ["17 (Concat); row 18 (C3)", "20 (Concat); row 21 (C3)", "23 (Concat); row 24 (C3)"]),
        (by_hand(2), ["17 (nn.Upsample); row 19 (C3)"]),
        (by_hand(4), ["20 (Concat); row 24 (C3)", "23 (Concat); row 27 (C3)"]),
        (PLAIN.replace("[[17, 20, 23], 1, Detect", "[[17, 20, 22], 1, Detect"), ["22 (Concat); row 23 (C3)"]),
    ],
)
@pytest.mark.parametrize("host", ["ultralytics", "classic"])
def test_a_head_that_reads_a_join_is_told(
    text: str, told: list[str], host: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What remains where a row was inserted by hand: it builds, and detects worse without a word."""
    file = tmp_path / "hand5n.yaml"
    file.write_text(text, encoding="utf-8")
    with caplog.at_level("INFO", logger="yolo_attn"):
        yaml_model_load(str(file)) if host == "ultralytics" else load.load_classic(file, file)
    lines = [m for m in caplog.messages if "reads row" in m]
    assert lines == [f"{file}: Detect reads row {t} was probably meant" for t in told]


def test_no_published_head_is_told_of() -> None:
    import ultralytics

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    files = [*folder.rglob("*.yaml"), *find.configs_folder().glob("*.yaml")]
    assert len(files) > 100
    for file in files:
        assert not misread(load.read(file)), file


def test_utf16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "yolov5n_mine.yaml"
    path.write_bytes(BASE.encode("utf-16"))
    with pytest.raises(ConfigError, match="is UTF-16 text. Save it as UTF-8"):
        load.read(path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "yolov5s_mine.yaml"
    path.write_bytes("nc: 80 # 类别".encode("gbk"))
    with pytest.raises(ConfigError, match="UTF-8"):
        DetectionModel(str(path), verbose=False)


def test_a_scale_that_the_file_lacks(tmp_path: Path) -> None:
    path = tmp_path / "yolov5_mine.yaml"
    path.write_text("\n".join(t for t in BASE.splitlines() if not t.startswith("  x:")), encoding="utf-8")
    with pytest.raises(ConfigError, match="scale 'x'.*n, s, m, l"):
        DetectionModel(str(tmp_path / "yolov5x_mine.yaml"), verbose=False)


def test_a_name_that_host_and_kit_share(tmp_path: Path) -> None:
    """An ambiguous name is an error that names both classes; the kit's prefix tells them apart."""
    from torch import nn

    from yolo_attn.registry import registry

    class SPPF(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    registry.register("SPPF", SPPF)
    try:
        with pytest.raises(RowError, match=r"ultralytics.*SPPF.*test_config.*SPPF.*yolo_attn\.SPPF"):
            DetectionModel("yolov5n_se.yaml", verbose=False)
        path = tmp_path / "yolov5n_mine.yaml"
        path.write_text(BASE.replace("SPPF, [1024, 5]", "yolo_attn.SPPF, []"), encoding="utf-8")
        assert isinstance(DetectionModel(str(path), verbose=False).model[13], SPPF)
    finally:
        registry.unregister("SPPF")
