"""What every runtime offers: a network that maps images to arrays, with the metadata of its file."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import numpy as np

from ...errors import FileError, YoloAttnError, first_line
from ...files import read_text

__all__ = ["Network", "Options", "cores", "flat", "imported", "one_file", "read_yaml", "refused", "version_of"]


SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True)
class Options:
    """How a file is opened.

    Args:
        threads: Number of threads; 0 leaves the choice to the runtime.
        provider: onnxruntime's provider, see :func:`.onnxruntime.providers`.
        spin: Whether idle threads of onnxruntime wait actively.
    """

    threads: int = 0
    provider: str = "auto"
    spin: bool = True


@dataclass(frozen=True)
class Network:
    """A file that a runtime has opened.

    Args:
        run: Maps (B, 3, H, W) float32 between 0 and 1 to the outputs, the main one first, boxes in pixels.
        metadata: What the file says of itself, as text by key, in the form of the hosts.
        shape: Shape of the input; a size that is not fixed is 0, None or a name.
        outputs: Shapes of the outputs, likewise.
        provider: What computes, such as onnxruntime's ``CPUExecutionProvider``.
        version: Version of the runtime.
        dtype: Type of the input.
    """

    run: Callable[[np.ndarray], list[np.ndarray]]
    metadata: dict[str, str]
    shape: list[Any]
    outputs: list[list[Any]]
    provider: str
    version: str
    dtype: Any = field(default_factory=lambda: np.dtype(np.float32))


def imported(module: str, title: str, extra: str) -> ModuleType:
    """Import a runtime's package.

    Raises:
        YoloAttnError: It is not installed, or does not load; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name and not module.startswith(exc.name):  # its own dependency
            raise YoloAttnError(f"{title} cannot be loaded: {first_line(exc)}. {_install(extra)}") from exc
        raise YoloAttnError(f"{title} is not installed. {_install(extra)}") from exc
    except Exception as exc:  # a package for another machine, or beside versions that it does not know
        told = first_line(exc)[:200] or type(exc).__name__
        raise YoloAttnError(f"{title} is installed and cannot be loaded: {told}. {_install(extra)}") from exc


def _install(extra: str) -> str:
    return f'Install it by: pip install "yolo_attn[{extra}]"'


def cores() -> int:
    """Return the number of physical cores that this process may run on; two threads of one core only wait for each other."""
    able = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    places = set()
    for n in able:
        try:
            places.add(read_text(SIBLINGS.format(n), FileError))
        except FileError:  # not Linux, or it does not tell
            places.add(str(n))
    return len(places)


def version_of(distribution: str) -> str:
    """Return the version of an installed package, or ``?``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "?"


def one_file(path: Path, pattern: str, title: str) -> Path:
    """Return the file of a folder that the runtime opens; `path` itself if it is that file.

    Raises:
        FileError: The folder holds none, or several.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob(pattern))
    if len(found) != 1:
        raise FileError(f"{path}: is no {title} model: it should hold one {pattern}, it holds {len(found)}.")
    return found[0]


def read_yaml(folder: Path) -> dict[str, str]:
    """Return the ``metadata.yaml`` that the hosts write beside a network, values as text; empty where there is none.

    Raises:
        FileError: It is not YAML, or no mapping.
    """
    import yaml

    path = folder / "metadata.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(read_text(path, FileError))
    except yaml.YAMLError as exc:
        raise FileError(f"{path}: is not YAML: {first_line(exc)}") from exc
    if not isinstance(found, dict):
        raise FileError(f"{path}: is not the metadata of a network.")
    return flat(found)


def flat(entries: Mapping[Any, Any]) -> dict[str, str]:
    """Return metadata as ONNX files hold it: every value as text."""
    return {str(k): v if isinstance(v, str) else repr(v) for k, v in entries.items()}


def sized(entries: Mapping[str, str]) -> list[Any]:
    """Return the shape of the input by the metadata, for runtimes whose files do not tell: (B, 3, H, W), 0 if unknown."""
    sides = [int(v) for v in re.findall(r"\d+", entries.get("imgsz", ""))][:2]
    if len(sides) != 2 or re.search(r"'dynamic': True", entries.get("args", "")):
        return [0, 3, 0, 0]
    return [0, 3, *sides]


def pixels(outputs: Sequence[np.ndarray], size: tuple[int, int], entries: Mapping[str, str]) -> list[np.ndarray]:
    """Return outputs whose boxes are fractions of the image size, as some converters need them, with boxes in pixels.

    Args:
        outputs: The main output first, (B, 4 + classes, N), boxes x y w h between 0 and 1; changed in place.
        size: Height and width of the input, in pixels.
        entries: The file's metadata; ``kpt_shape`` and ``names`` tell where key points are.
    """
    h, w = size
    main = outputs[0]
    main[:, [0, 2]] *= w
    main[:, [1, 3]] *= h
    points = [int(v) for v in re.findall(r"\d+", entries.get("kpt_shape", ""))]
    if len(points) == 2:
        first, step = main.shape[1] - points[0] * points[1], points[1]
        main[:, first::step] *= w
        main[:, first + 1 :: step] *= h
    return list(outputs)


def in_pixels(outputs: Sequence[np.ndarray], x: np.ndarray, entries: Mapping[str, str]) -> list[np.ndarray]:
    """Return outputs of an ONNX file with boxes in pixels, also of one that was exported with boxes from 0 to 1."""
    if entries.get("boxes") != "relative":
        return list(outputs)
    return pixels([np.array(y) for y in outputs], (x.shape[2], x.shape[3]), entries)


def refused(path: Path, runtime: str, doing: str, exc: BaseException) -> FileError:
    """Return the error for a file that a runtime cannot open or run."""
    if isinstance(exc, SystemError) and exc.__cause__ is not None:  # a binding that set an error and returned: that error
        exc = exc.__cause__
    lines = map(str.strip, str(exc).splitlines())
    # OpenVINO begins with places in its source
    told = next((line for line in lines if line and not re.match(r"(Exception from|Check '.*' failed at) \S+:\d+:?$", line)), "")
    return FileError(f"{path}: {runtime} cannot {doing}: {(told or first_line(exc) or type(exc).__name__)[:300]}")
