"""Every shipped YAML exports, and the proof passes."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from conftest import slow_but

from yolo_attn.export import tensorrt
from yolo_attn.export.single import export
from yolo_attn.model_yaml import find, load

warnings.filterwarnings("ignore", category=DeprecationWarning)

CONFIGS = [Path(n).stem for n in find.list_configs()]
# Size n where a YAML has sizes; the residual networks are written for one.
SCALED = [c for c in CONFIGS if not c.endswith("-cls") and "resnet" not in c]


def sized(name: str, letter: str) -> str:
    """`yolov5_se` and n -> `yolov5n_se`; `yolov5-p6_se` -> `yolov5n6_se`."""
    if name not in SCALED:
        return name
    head, _, tail = name.partition("_")
    base, six = head.removesuffix("-p6"), "6" if head.endswith("-p6") else ""
    return f"{base}{letter}{six}" + (f"_{tail}" if tail else "")


# Not slimmed, which takes four fifths of the time: the neck with the attention that the backbone has in another file, and
# P6, whose rows are P5's once more. One of each stands for the rows that are theirs alone.
SLIMMED = [
    c for c in SCALED
    if c in ("yolov5_se_neck", "yolov5-p6_eca_neck") or not (c.endswith("_neck") or c.startswith("yolov5-p6"))
]  # fmt: skip


def test_every_attention_is_slimmed_somewhere() -> None:
    of = {c: {str(row[2]) for part in ("backbone", "head") for row in load.read(find.configs_folder() / f"{c}.yaml")[part]}
          for c in SCALED}  # fmt: skip
    assert set().union(*(of[c] for c in SLIMMED)) == set().union(*of.values())


@pytest.mark.parametrize("name", slow_but(SCALED, "yolov5_se", "yolo11_se"))
def test_a_shipped_config_exports_dynamic(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    result = export(
        sized(name, "n") + ".yaml", imgsz=64, dynamic=True, simplify=name in SLIMMED, output=tmp_path / "a.onnx",
        log=lambda line: None,
    )  # fmt: skip
    runs = result.report["proof"]["runs"]
    assert result.report["proof"]["passed"] and len({tuple(r["shape"]) for r in runs}) >= 2
    assert not tensorrt.unsupported(result.report["graph"]["operators"])
    assert bool(result.report["attention"]) == ("_" in name)


OTHERS = [c for c in CONFIGS if c not in SCALED and "18" in c]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALED + OTHERS)
def test_a_shipped_config_exports_static(name: str, tmp_path: Path) -> None:
    """Size s, and the residual networks of 18 layers; not slimmed, which takes most of an export's time."""
    torch.manual_seed(2)
    result = export(sized(name, "s") + ".yaml", imgsz=[64, 128], simplify=False, output=tmp_path / "a.onnx",
                    log=lambda line: None)  # fmt: skip
    assert result.report["proof"]["passed"] and result.report["imgsz"] == [64, 128]
    assert not tensorrt.unsupported(result.report["graph"]["operators"])
