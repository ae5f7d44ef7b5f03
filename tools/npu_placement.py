"""Which operators of a network fall to the CPU on Rockchip's processors, by their compiler; no board is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolo_attn.errors import YoloAttnError
from yolo_attn.export.formats.apart import convert_apart
from yolo_attn.export.formats.npu import placement, summed
from yolo_attn.export.formats.rknn import talking
from yolo_attn.runtime.engines.rknn import settings

CHIPS = ("rk3588", "rk3566")  # an NPU of three cores that knows most operators, and the widespread one that knows fewer


def add_placement(found: dict[str, Any], attention: Sequence[str], folder: Path) -> None:
    """Add to an export's report as ``on_cpu`` what attention leaves to the CPU, in fp16 and in int8.

    Args:
        found: The report.
        attention: Paths of the attention layers.
        folder: The folder that holds what was exported.
    """
    files = list(folder.glob("*_rknn_model/*.onnx"))
    if files:
        found["on_cpu"] = placed(files[0], attention, folder / "chips", found.get("npu"))
    add_placement_int8(found)


def add_placement_int8(found: dict[str, Any]) -> None:
    """Add to an export's report what attention leaves to the CPU in int8, by the compiler's run for the export itself."""
    own = found.get("int8", {}).get("npu")
    if own is not None:
        found["int8"]["on_cpu"] = f"{own['chip']}: {summed(own['on_cpu_in_attention']) or 'none'}"


def placed(file: Path, attention: Sequence[str], folder: Path, known: dict[str, Any] | None = None) -> str:
    """Return what attention leaves to the CPU, such as ``rk3588: none; rk3566: ReduceMax x2, Transpose``.

    Args:
        file: An ONNX file that `yolo-attn export --format rknn` wrote.
        attention: Paths of the attention layers.
        folder: An empty folder to work in.
        known: What the report of an export tells already, for its own processor.
    """
    parts = []
    for chip in CHIPS:
        found = known if known is not None and known["chip"] == chip else compiled(file, chip, attention, folder)
        parts.append(f"{chip}: {'not compiled' if found is None else summed(found['on_cpu_in_attention']) or 'none'}")
    return "; ".join(parts)


def compiled(file: Path, chip: str, attention: Sequence[str], folder: Path) -> dict[str, Any] | None:
    """Compile a network for a processor; return what its compiler tells, None where it fails."""
    place = folder / chip
    place.mkdir(parents=True)  # the compiler's log lies beside it
    file = file.resolve()

    def build() -> Path:
        with talking():
            from rknn import api

            net = api.RKNN()
            codes = [net.config(**settings(chip)), net.load_onnx(model=str(file)), net.build(do_quantization=False)]
            codes.append(net.export_rknn("m.rknn"))
        if any(codes):
            raise YoloAttnError(f"codes {codes}")
        return Path("m.rknn")

    try:
        convert_apart(build, place, f"RKNN's compiler for {chip}")
    except YoloAttnError:
        return None
    printed = place.with_name(f"{chip}.log").read_text(encoding="utf-8", errors="replace")
    return placement(printed, chip, attention)
