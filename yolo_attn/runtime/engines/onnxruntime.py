"""onnxruntime: an ``.onnx`` file with the providers of this installation."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError, UsageError, YoloAttnError, did_you_mean
from .network import Network, Options, in_pixels, refused

__all__ = ["open_network", "providers"]


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


# Of int8 files: without VNNI the sums of unsigned and signed products saturate; this takes the kernels in which not.
EXACT = "session.x64quantprecision"
QUANTIZED = b"DequantizeLinear"  # an operator that int8 files have, and no others
SILENT = 4


def _session(path: Path, given: Any, wanted: list[str]) -> Any:
    """Open a file; an int8 file with the exact kernels, which onnxruntime 1.32 cannot where convolutions share their weights.

    What onnxruntime logs of the try goes nowhere; a session keeps the level that it was opened with, so that the one
    that is returned is opened at the default level.
    """
    import onnxruntime as ort

    if QUANTIZED in path.read_bytes():
        probe = ort.SessionOptions()
        probe.log_severity_level = SILENT
        probe.add_session_config_entry(EXACT, "1")
        with contextlib.suppress(Exception):  # what is wrong with the file itself, the next opening tells
            ort.InferenceSession(str(path), probe, providers=["CPUExecutionProvider"])
            given.add_session_config_entry(EXACT, "1")
    return ort.InferenceSession(str(path), given, providers=wanted)


def open_network(path: Path, options: Options) -> Network:
    """Open a file.

    Raises:
        FileError: onnxruntime cannot open it.
        UsageError: There is no such provider.
    """
    try:
        import onnxruntime as ort
    except ImportError as exc:
        raise YoloAttnError(
            "onnxruntime is not installed. Install it, or use --runtime opencv for a file without dynamic shapes."
        ) from exc
    given = ort.SessionOptions()
    if options.threads > 0:
        given.intra_op_num_threads = options.threads
    if not options.spin:
        given.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = providers(options.provider)
    try:
        session = _session(path, given, wanted)
    except Exception as exc:  # onnxruntime's errors share no base class
        raise refused(path, "onnxruntime", "load it", exc) from exc
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise FileError(f"{path}: is not a detector: it has {len(inputs)} inputs, a detector has one, the image.")
    provider = session.get_providers()[0]
    if options.provider != "auto" and provider != wanted[0]:  # onnxruntime falls back silently
        raise YoloAttnError(f"onnxruntime cannot use {wanted[0]} here; its message above says why")
    name, meta = inputs[0].name, dict(session.get_modelmeta().custom_metadata_map)

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            found = [np.asarray(y) for y in session.run(None, {name: x})]
        except Exception as exc:
            raise refused(path, "onnxruntime", f"run it on {list(x.shape)}", exc) from exc
        return in_pixels(found, x, meta)

    return Network(
        run=run,
        metadata=meta,
        shape=list(inputs[0].shape),
        outputs=[list(o.shape) for o in session.get_outputs()],
        provider=provider,
        version=ort.__version__,
        dtype=np.dtype(np.float16 if "float16" in inputs[0].type else np.float32),
    )
