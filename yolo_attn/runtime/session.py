"""An exported detector in any of the runtimes behind one small interface, with its metadata."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, YoloAttnError, one_line, shown
from ..files import read_text
from .boxes import layout_of
from .engines import table
from .engines.network import Options
from .engines.onnxruntime import providers
from .engines.opencv import describe
from .proved import check
from .tasks import TASKS, extra_columns

__all__ = ["RUNTIMES", "Detector", "describe", "providers"]

LARGEST, MOST = 32_768, 100_000  # limits: pixels of a side, number of classes
RUNTIMES = tuple(table.RUNTIMES)


class Detector:
    """One exported detector, ready to run.

    Args:
        path: The file or folder.
        runtime: A key of :data:`RUNTIMES`, or ``auto`` for the one that opens files of this kind.
        threads: Number of threads; 0 leaves the choice to the runtime.
        provider: onnxruntime's provider, see :func:`providers`.
        spin: Whether idle threads of onnxruntime wait actively; turn off where several files run in turns.
        unproved: Open also a file that changed since it was proved, or that differs from PyTorch by its report.

    Attributes:
        notes: What the user should know of the file, in lines.
        runtime: Name of the runtime that runs it.
        version: Its version.
        provider: The first provider of onnxruntime that runs it; the processor for other runtimes.
        task: What it does, one of :data:`.tasks.TASKS`.
        points: Of a model for pose, the number of key points and of numbers for each.
        names: Class number to name.
        stride: The largest stride of the head.
        size: Height and width of the input in pixels, or None if they are dynamic.
        batch: Images per run, or None if that is dynamic.
        layout: Layout of the output, a key of :data:`.boxes.LAYOUTS`; for a file without metadata known after the
            first run.

    Raises:
        YoloAttnError: No such file, no detector, one that is not the proved one, or a runtime that is missing or cannot
            load it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        runtime: str = "auto",
        threads: int = 0,
        provider: str = "auto",
        spin: bool = True,
        unproved: bool = False,
    ) -> None:
        self.path = Path(path)
        self.runtime = table.runtime_for(self.path, runtime)
        self.notes = check(self.path, unproved)
        network = table.open_network(self.path, self.runtime, Options(threads, provider, spin))
        self._run = network.run
        self.provider, self.version, self.dtype = network.provider, network.version, network.dtype
        self.metadata = meta = network.metadata
        shape, outputs = network.shape, network.outputs
        self.task = meta.get("task") or "detect"
        numbers = [int(v) for v in re.findall(r"\d+", meta.get("kpt_shape", ""))]
        self.points: tuple[int, int] = (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)
        self.extra = 0  # numbers of each candidate beside box and scores, known after the first run
        self._check(shape, outputs)
        self.names = _names(meta.get("names"), self.path)
        if not self.names:
            self.notes.append(f"{self.path}: its metadata has no class names: classes are told by their numbers")
        self.stride = _stride(meta.get("stride"), self.path)
        fixed = [d if isinstance(d, int) and d > 0 else None for d in shape]
        self.batch = fixed[0]
        self.size: tuple[int, int] | None = (fixed[2], fixed[3]) if fixed[2] and fixed[3] else None
        hints = meta.get("args", "")
        self.nms_inside = _argument(hints, "nms") is True
        # files of an end-to-end head, or with NMS inside, end in (B, N, 6)
        self._final = meta.get("end2end") == "True" or self.nms_inside
        self.layout: str | None = None
        out = outputs[0]
        if self.task == "detect" and len(out) == 3 and all(isinstance(d, int) and d > 0 for d in out[1:]):
            self.layout = self._layout(tuple(1 if not isinstance(d, int) else d for d in out))

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width in pixels that the file was exported with, or 640 x 640."""
        if self.size:
            return self.size
        said = _literal(self.metadata.get("imgsz"))
        if isinstance(said, int):
            said = [said, said]
        if said is None and not self.metadata.get("imgsz"):
            return 640, 640
        pair = list(said) if isinstance(said, (list, tuple)) else []
        if len(pair) != 2 or any(type(v) is not int or not 0 < v <= LARGEST for v in pair):
            raise _foreign(self.path, "imgsz", self.metadata["imgsz"], f"height and width, 1 to {LARGEST:,} pixels")
        return pair[0], pair[1]

    @property
    def attention(self) -> dict[str, int] | None:
        """The attention in it, registered name to count, by its metadata or the report beside it; None if unknown."""
        text = self.metadata.get("attention", "")
        try:
            if not text:
                text = json.dumps(json.loads(read_text(f"{self.path}.json", FileError))["attention"])
            found = json.loads(text)
            return {str(k): int(v) for k, v in found.items()}
        except (FileError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Run on (B, 3, H, W) float32 between 0 and 1 and return the main output, float32; of a detector 3-D."""
        return self.outputs(x)[0]

    def outputs(self, x: np.ndarray) -> list[np.ndarray]:
        """Run and return all outputs, the main one first."""
        found = [np.asarray(y).astype(np.float32, copy=False) for y in self._run(x.astype(self.dtype, copy=False))]
        if self.task == "classify":
            if found[0].ndim != 2 or found[0].shape[1] != len(self.names):
                raise FileError(f"{self.path}: is no classifier of {len(self.names)} classes: its output has the shape {list(found[0].shape)}.")
        elif self.layout is None:
            try:
                self.extra = extra_columns(self.task, found, self.points)
            except YoloAttnError as exc:
                raise FileError(f"{self.path}: {exc}.") from exc
            self.layout = self._layout(found[0].shape)
        return found

    def _layout(self, shape: tuple[int, ...]) -> str:
        more = self.extra if len(shape) == 3 else 0
        # what a task has besides stands behind the scores, whose dimension is known by the number of classes
        rows = bool(more) and not self._final and shape[1] == 4 + len(self.names) + more
        plain = shape if not more else (shape[0], shape[1] - more, shape[2]) if rows else (shape[0], shape[1], shape[2] - more)
        found = layout_of(plain, len(self.names) or None, self._final)
        if found is None and self.task != "detect":
            raise FileError(
                f"{self.path}: is no model for {shown(self.task)} of {len(self.names)} classes: its output has the shape {list(shape)}."
            )
        if found is None:
            raise FileError(
                f"{self.path}: is not a detector: its output has the shape {list(shape)}, a detector's is "
                f"[batch, 4 + classes, N], [batch, N, 5 + classes] or [batch, N, 6]."
            )
        return found

    def _check(self, shape: Sequence[Any], outputs: Sequence[Sequence[Any]]) -> None:
        if self.task not in TASKS:
            raise FileError(f"{self.path}: is a model for {shown(self.task)}; detect knows those for {', '.join(TASKS)}.")
        if self.task != "detect" and self.runtime == "opencv":
            raise FileError(f"{self.path}: is a model for {shown(self.task)}: --runtime opencv runs detectors alone.")
        if self.task != "detect" and not self.metadata.get("names"):
            raise FileError(f"{self.path}: its metadata has no class names, by which the output of a model for {shown(self.task)} is read.")
        if self.task == "pose" and not all(self.points):
            raise _foreign(self.path, "kpt_shape", self.metadata.get("kpt_shape"), "the number of key points and of numbers for each")
        channels = shape[1] if len(shape) == 4 else None
        if len(shape) != 4 or (isinstance(channels, int) and channels not in (3, 0, -1)):
            raise FileError(
                f"{self.path}: is not a detector: its input has the shape {list(shape)}, a detector's is [B, 3, H, W]."
            )
        if self.task == "detect" and (not outputs or len(outputs[0]) != 3):
            got = list(outputs[0]) if outputs else "nothing"
            raise FileError(
                f"{self.path}: is not a detector: its output has the shape {got}, a detector's is "
                f"[batch, 4 + classes, N], [batch, N, 5 + classes] or [batch, N, 6]."
            )


def _names(text: str | None, path: Path) -> dict[int, str]:
    """Parse the class names of the metadata; empty for a file without metadata.

    Raises:
        FileError: They do not map numbers to names.
    """
    found = _literal(text)
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if found is None and not text:
        return {}
    wanted = "class names by number"
    if not isinstance(found, dict) or len(found) > MOST:
        raise _foreign(path, "names", text, wanted)
    try:
        return {_number(k): one_line(str(v)[:200]) for k, v in found.items()}
    except ValueError as exc:
        raise _foreign(path, "names", text, wanted) from exc


def _number(key: Any) -> int:
    if type(key) is not int and not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 7):
        raise ValueError(key)
    if not 0 <= int(key) < MOST:
        raise ValueError(key)
    return int(key)


def _stride(text: str | None, path: Path) -> int:
    """Parse the largest stride of the head; 32 for a file without metadata."""
    if not text:
        return 32
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value.is_integer() and 1 <= value <= 1024):
        raise _foreign(path, "stride", text, "a whole number from 1 to 1,024")
    return int(value)


def _foreign(path: Path, key: str, found: Any, wanted: str) -> FileError:
    return FileError(f"{path}: was not exported by this kit: its metadata '{key}' is {shown(found)}, not {wanted}.")


def _literal(text: str | None) -> Any:
    if not text or len(text) > 2_000_000:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _argument(text: str, key: str) -> Any:
    found = _literal(text)
    return found.get(key) if isinstance(found, dict) else None
