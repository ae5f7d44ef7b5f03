"""Whether a file is the one that was proved: the report beside it holds the hashes of what was compared with PyTorch.

A runtime runs whatever it can read: NCNN takes the weights of another model of the same shape, and any input size that
the metadata names, and computes other boxes without a word.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, one_line
from ..files import read_text
from .engines.table import RUNTIMES

__all__ = ["Digest", "check", "digest", "read_report", "report_path"]

CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """What a file or folder holds.

    Args:
        sha256: Of the file; of a folder, of the names and contents of its files in order.
        bytes: Size of it all.
        files: Of a folder, the hash of each file by its path; empty for a file.
    """

    sha256: str
    bytes: int
    files: dict[str, str]

    def entries(self) -> dict[str, Any]:
        """Return what a report holds of it."""
        return {"sha256": self.sha256, "bytes": self.bytes, **({"files": self.files} if self.files else {})}


def digest(path: Path) -> Digest:
    """Hash a file, or every file of a folder.

    Raises:
        FileError: It cannot be read.
    """
    folder = path.is_dir()
    whole, size, each = hashlib.sha256(), 0, {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if folder else [path]:
        name, own = file.relative_to(path).as_posix(), hashlib.sha256()
        if folder:
            whole.update(f"{name}\n".encode())
        try:
            with file.open("rb") as stream:
                while data := stream.read(CHUNK):
                    own.update(data)
                    whole.update(data)
                    size += len(data)
        except OSError as exc:
            raise FileError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
        if folder:
            each[name] = own.hexdigest()
    return Digest(whole.hexdigest(), size, each)


def report_path(model: Path) -> Path:
    """Return the path of a file's report, such as `best.onnx.json`."""
    return model.with_name(model.name + ".json")


def read_report(model: Path) -> dict[str, Any] | None:
    """Return the report beside a file; None where there is none, or none that the kit wrote."""
    try:
        told = json.loads(read_text(report_path(model), FileError))
    except (FileError, ValueError):
        return None
    return told if isinstance(told, dict) and isinstance(told.get("sha256"), str) else None


def check(path: Path, unproved: bool = False) -> list[str]:
    """Compare a file with the report beside it.

    Args:
        path: A file, a folder, or the file of a folder that a runtime opens.
        unproved: Go on with a file that is not the one of its report, or that was found to differ from PyTorch.

    Returns:
        What the user should know, in lines; none for a file that was proved.

    Raises:
        FileError: The file changed since it was proved, or its report says that it differs from PyTorch.
    """
    path = _whole(path)
    report = read_report(path)
    if report is None and report_path(path).is_file():
        return [f"{path}: was not proved by yolo-attn export: {report_path(path).name} beside it is damaged, or not of its making"]
    if report is None:
        return [f"{path}: was not proved by yolo-attn export: no report of it is beside it ({report_path(path).name})"]
    changed = _changed(path, report)
    if changed and not unproved:
        raise FileError(
            f"{path}: {changed} since it was proved, and may find other objects. Export it again; to go on without that "
            f"proof: --unproved"
        )
    if changed:
        return [f"{path}: {changed} since it was proved, and may find other objects"]
    proof = report.get("proof")
    if isinstance(proof, dict) and proof.get("passed") is False and "runs" in proof:
        told = one_line(str(proof.get("problem", "")))[:200]
        if not unproved:
            raise FileError(f"{path}: differs from PyTorch by its report: {told}. To run it all the same: --unproved")
        return [f"{path}: differs from PyTorch by its report: {told}"]
    passed = isinstance(proof, dict) and proof.get("passed") is True
    if not passed and not isinstance(report.get("measured"), dict):  # what an int8 file has in place of a proof
        return [f"{path}: was not proved by yolo-attn export: its report ({report_path(path).name}) has no proof that passed"]
    return _older(path, report)


def _whole(path: Path) -> Path:
    """Return the folder that a file belongs to, where it is one of several that a runtime reads."""
    folder, name = path.parent, path.name.lower()
    for runtime in RUNTIMES.values():
        kinds = [s for s in runtime.suffixes if s.endswith("_model")]
        if name.endswith(tuple(s for s in runtime.suffixes if s not in kinds)) and folder.name.lower().endswith(tuple(kinds)):
            return folder
    return path


def _changed(path: Path, report: dict[str, Any]) -> str:
    """Return what changed, or an empty string."""
    found, before = digest(path), report.get("files")
    if found.sha256 == report["sha256"]:
        return ""
    if not found.files:
        return "changed"
    if not isinstance(before, dict):  # of an earlier version: the folder as a whole
        return "a file in it changed"
    kinds = {Path(name).suffix for name in before}
    parts = [f"{n} is missing" if n not in found.files else f"{n} changed" for n, h in before.items() if found.files.get(n) != h]
    # what somebody laid beside them, such as a README, no runtime reads
    parts += [f"{n} was added" for n in found.files if n not in before and Path(n).suffix in kinds and not Path(n).name.startswith(".")]
    return " and ".join(parts)


def _older(path: Path, report: dict[str, Any]) -> list[str]:
    """Tell of a file whose weights are not those of the fp32 file beside it that it was made from."""
    made_from = report.get("fp32")
    if not isinstance(made_from, str):
        return []
    full = read_report(path.with_name(made_from))
    if full is None or full.get("weights") == report.get("weights"):
        return []
    return [f"{path}: is of other weights than {made_from} beside it, which was exported since"]
