"""`yolo-attn env`: what a bug report needs."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import HostError
from ..system.console import talk_aside

PACKAGES = [
    "torch",
    "torchvision",
    "ultralytics",
    "yolov5",
    "numpy",
    "opencv-python",
    "onnx",
    "onnxruntime",
    "onnxslim",
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--host", metavar="DIR", help="also report on the YOLOv5 checkout in this folder")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print versions, devices and hosts."""
    rows = [("yolo_attn", __version__), ("python", f"{platform.python_version()} ({sys.executable})")]
    rows += [("platform", platform.platform())]
    rows += [(name, _version(name)) for name in PACKAGES]
    with talk_aside(args.json):
        rows += _devices()
        rows += _hosts(args.host)
    if args.json:  # a host may have several lines
        print(json.dumps({k: "\n".join(v for n, v in rows if n == k) for k, _ in rows}, indent=1, ensure_ascii=False))
        return 0
    width = max(len(k) for k, _ in rows) + 2
    for key, value in rows:
        print(f"{key:<{width}}{value}")
    return 0


def _version(name: str) -> str:
    for spelling in (name, f"{name}-headless", f"{name}-gpu"):
        try:
            return importlib.metadata.version(spelling) + ("" if spelling == name else f" ({spelling})")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _devices() -> list[tuple[str, str]]:
    try:
        import torch
    except Exception as exc:
        return [("devices", f"torch cannot be imported: {exc}")]
    rows = [("threads", str(torch.get_num_threads()))]
    if not torch.cuda.is_available():
        return [*rows, ("devices", "cpu")]
    names = [f"{i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*rows, ("devices", "; ".join(names)), ("cuda", str(torch.version.cuda))]


def _hosts(folder: str | None) -> list[tuple[str, str]]:
    from ..hook import install
    from ..patches import HOSTS

    if folder:
        if not Path(folder).is_dir():
            raise HostError(f"--host {folder}: no such folder (looked in {Path.cwd()})")
        sys.path.insert(0, str(Path(folder).resolve()))
    install.repair()  # v6.0 cannot even be imported without a network
    rows = []
    for host in HOSTS:
        name = f"host {host.name}"
        try:
            module = importlib.import_module(host.parser)
        except ImportError:
            rows.append((name, "not found"))
            continue
        except Exception as exc:  # reported, whatever a broken host raises
            rows.append((name, f"cannot be imported: {type(exc).__name__}: {exc}"))
            continue
        if not host.recognise(module):
            rows.append((name, f"not found ({module.__name__} is something else)"))
        elif host.name in install.installed():
            rows.append((name, f"{host.version(module)}, {_patches(host)}, {module.__file__}"))
            rows += [(name, line) for line in str(install.failures().get(host.name, "")).splitlines()]
        else:
            rows.append((name, str(install.failures().get(host.name, "not patched"))))
    return rows


def _patches(host: Any) -> str:
    """Count a host's active patches, after importing every module that has one."""
    from ..hook import install

    for name in dict.fromkeys(p.module for p in host.patches):
        with contextlib.suppress(Exception):  # some versions lack the module, or a package that it imports is missing
            importlib.import_module(name)
    found = {(h.module.__name__, h.function) for h in install.applied() if h.host == host.name}
    here = [p for p in host.patches if (p.module, p.function) in found]
    return f"{len(host.grouped(here))} patches ({len(here)} functions)"
