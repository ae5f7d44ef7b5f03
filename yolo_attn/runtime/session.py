"""An ONNX detector in onnxruntime or OpenCV behind one small interface, with its metadata."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, UsageError, YoloAttnError, did_you_mean, first_line, one_line, shown
from .boxes import layout_of

__all__ = ["RUNTIMES", "Detector", "describe", "providers"]

LARGEST, MOST = 32_768, 100_000  # limits: pixels of a side, number of classes
RUNTIMES = ("onnxruntime", "opencv")


def providers(wanted: Sequence[str] | str = "auto") -> list[str]:
    """Return the execution providers of onnxruntime for a user's choice.

    Args:
        wanted: ``auto`` (CUDA if available, then CPU), ``cpu``, ``cuda``, ``tensorrt``, or full provider names.

    Raises:
        UsageError: This onnxruntime does not have the provider.
    """
    import onnxruntime as ort

    have = ort.get_available_providers()
    if isinstance(wanted, str):
        wanted = [wanted]
    if list(wanted) == ["auto"]:
        return [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in have]
    short = {p.replace("ExecutionProvider", "").lower(): p for p in have}
    out = []
    for w in wanted:
        name = short.get(w.lower(), w)
        if name not in have:
            raise UsageError(
                f"this onnxruntime has no provider '{w}', only {', '.join(sorted(short))}."
                f"{did_you_mean(w, short)} GPU providers come with the package onnxruntime-gpu."
            )
        out.append(name)
    return out if "CPUExecutionProvider" in out else [*out, "CPUExecutionProvider"]


class Detector:
    """One ONNX detector, ready to run.

    Args:
        path: The file.
        runtime: ``onnxruntime`` or ``opencv``.
        threads: Number of threads; 0 leaves the choice to the runtime.
        provider: onnxruntime's provider, see :func:`providers`.
        spin: Whether idle threads of onnxruntime wait actively; turn off where several files run in turns.

    Attributes:
        provider: The first provider of onnxruntime that runs it, or ``OpenCV``.
        names: Class number to name.
        stride: The largest stride of the head.
        size: Height and width of the input in pixels, or None if they are dynamic.
        batch: Images per run, or None if that is dynamic.
        layout: Layout of the output, a key of :data:`.boxes.LAYOUTS`; for a file without metadata known after the
            first run.

    Raises:
        UsageError: No such file, not ONNX, no detector, or a runtime that is missing or cannot load it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        runtime: str = "onnxruntime",
        threads: int = 0,
        provider: str = "auto",
        spin: bool = True,
    ) -> None:
        self.path = Path(path)
        if runtime not in RUNTIMES:
            raise UsageError(f"no runtime is called '{runtime}', only {' and '.join(RUNTIMES)}")
        if not self.path.is_file():
            raise FileError(f"model not found: {path} (looked in {Path.cwd()}). It is an ONNX file that you exported.")
        if self.path.suffix.lower() != ".onnx":
            raise FileError(
                f"{path}: is no ONNX file by its name. From a checkpoint one is made by: yolo-attn export BEST.pt"
            )
        self.runtime = runtime
        self._run: Any = None
        self.provider = "OpenCV"
        self._spin = spin
        self.dtype: Any = np.dtype(np.float32)
        opener = self._open_onnxruntime if runtime == "onnxruntime" else self._open_opencv
        meta, shape, outputs = opener(threads, provider)
        self.metadata = meta
        self._check(shape, outputs)
        self.names = _names(meta.get("names"), self.path)
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
        if len(out) == 3 and all(isinstance(d, int) and d > 0 for d in out[1:]):
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

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Run on (B, 3, H, W) float32 between 0 and 1 and return the output, 3-D float32."""
        y = np.asarray(self._run(x.astype(self.dtype, copy=False)))
        if self.layout is None:
            self.layout = self._layout(y.shape)
        return y.astype(np.float32, copy=False)

    def _layout(self, shape: tuple[int, ...]) -> str:
        found = layout_of(shape, len(self.names) or None, self._final)
        if found is None:
            raise FileError(
                f"{self.path}: is not a detector: its output has the shape {list(shape)}, a detector's is "
                f"[batch, 4 + classes, N], [batch, N, 5 + classes] or [batch, N, 6]."
            )
        return found

    def _check(self, shape: Sequence[Any], outputs: Sequence[Sequence[Any]]) -> None:
        task = self.metadata.get("task")
        if task and task != "detect":
            raise FileError(f"{self.path}: is a model for {shown(task)}, not a detector.")
        channels = shape[1] if len(shape) == 4 else None
        if len(shape) != 4 or (isinstance(channels, int) and channels not in (3, 0, -1)):
            raise FileError(
                f"{self.path}: is not a detector: its input has the shape {list(shape)}, a detector's is [B, 3, H, W]."
            )
        if not outputs or len(outputs[0]) != 3:
            got = list(outputs[0]) if outputs else "nothing"
            raise FileError(
                f"{self.path}: is not a detector: its output has the shape {got}, a detector's is "
                f"[batch, 4 + classes, N], [batch, N, 5 + classes] or [batch, N, 6]."
            )

    def _open_onnxruntime(self, threads: int, provider: str) -> tuple[dict[str, str], list[Any], list[list[Any]]]:
        try:
            import onnxruntime as ort
        except ImportError as exc:
            raise YoloAttnError(
                "onnxruntime is not installed. Install it, or use --runtime opencv for a file without dynamic shapes."
            ) from exc
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads > 0:
            options.intra_op_num_threads = threads
        if not self._spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = providers(provider)
        try:
            session = ort.InferenceSession(str(self.path), options, providers=wanted)
        except Exception as exc:  # onnxruntime's errors share no base class
            raise FileError(f"{self.path}: onnxruntime cannot load it: {_first_line(exc)}") from exc
        inputs = session.get_inputs()
        if len(inputs) != 1:
            raise FileError(f"{self.path}: is not a detector: it has {len(inputs)} inputs, a detector has one, the image.")
        self.provider = session.get_providers()[0]
        if provider != "auto" and self.provider != wanted[0]:  # onnxruntime falls back silently
            raise YoloAttnError(f"onnxruntime cannot use {wanted[0]} here; its message above says why")
        name = inputs[0].name
        self.dtype = np.dtype(np.float16 if "float16" in inputs[0].type else np.float32)
        first = [session.get_outputs()[0].name]

        def run(x: np.ndarray) -> np.ndarray:
            try:
                return np.asarray(session.run(first, {name: x})[0])
            except Exception as exc:
                raise FileError(
                    f"{self.path}: onnxruntime cannot run it on {list(x.shape)}: {_first_line(exc)}"
                ) from exc

        self._run = run
        meta = dict(session.get_modelmeta().custom_metadata_map)
        return meta, list(inputs[0].shape), [list(o.shape) for o in session.get_outputs()]

    def _open_opencv(self, threads: int, provider: str) -> tuple[dict[str, str], list[Any], list[list[Any]]]:
        import cv2

        meta, shape, outputs = describe(self.path)
        if threads > 0:
            cv2.setNumThreads(threads)
        if meta.get("args") and _argument(meta["args"], "nms") is True:
            # OpenCV 5.0 divides by zero in native code on such a file, which would crash this process
            raise FileError(
                f"{self.path}: contains NMS, which OpenCV cannot run. Export without --nms; detect applies NMS itself."
            )
        try:
            # from bytes, since OpenCV opens only ASCII paths on Windows
            net = cv2.dnn.readNetFromONNX(np.fromfile(self.path, dtype=np.uint8))
        except Exception as exc:
            raise FileError(f"{self.path}: OpenCV {cv2.__version__} cannot load it: {_first_line(exc)}") from exc

        def run(x: np.ndarray) -> np.ndarray:
            net.setInput(x)
            try:
                return np.asarray(net.forward())
            except cv2.error as exc:
                raise FileError(f"{self.path}: OpenCV {cv2.__version__} cannot run it: {_first_line(exc)}") from exc

        self._run = run
        return meta, shape, outputs


def describe(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[Any], list[list[Any]]]:
    """Return an ONNX file's metadata, the shape of its input and the shapes of its outputs; dynamic sizes are names.

    Raises:
        FileError: The file is not ONNX, or is damaged.
    """
    try:
        import onnx
    except ImportError as exc:
        raise YoloAttnError(
            "the package onnx is not installed; --runtime opencv reads a file's metadata with it"
        ) from exc
    try:
        model = onnx.load(str(path), load_external_data=False)
        inputs = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    except Exception as exc:
        raise FileError(f"{path}: is not an ONNX file, or it is damaged: {_first_line(exc)}") from exc
    if not inputs:
        raise FileError(f"{path}: is not a detector: it has no input.")

    def shape(value: Any) -> list[Any]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    meta = {p.key: p.value for p in model.metadata_props}
    return meta, shape(inputs[0]), [shape(o) for o in model.graph.output]


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


def _first_line(exc: BaseException) -> str:
    return (first_line(exc) or type(exc).__name__)[:300]
