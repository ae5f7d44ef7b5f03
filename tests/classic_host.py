"""Classic YOLOv5 for tests: the checkouts that ``YOLO_ATTN_YOLOV5`` names, and the `yolov5` package from the registry.

``YOLO_ATTN_YOLOV5=/path/to/v7.0:/path/to/master pytest tests/hook`` runs every test on each of them too
(`;` between them on Windows). The package is installed beforehand by `tools/prepare_hosts.py`.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import prepare_hosts
import pytest
from conftest import ROOT, Run, run_python


@dataclass(frozen=True)
class Classic:
    """One classic host.

    Args:
        name: For the test's name.
        root: The folder of `train.py`.
        prefix: What its modules' names start with.
        path: What PYTHONPATH needs for it.
    """

    name: str
    root: Path
    prefix: str
    path: tuple[str, ...]

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that imports it."""
        path = [str(ROOT), *self.path, os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "YOLOV5_CONFIG_DIR": _config_folder(),
            "OMP_NUM_THREADS": "1",
            "YOLOv5_AUTOINSTALL": "false",
        }

    @property
    def imports(self) -> str:
        """Lines that make `yolo` the host's parser module and `general` its helpers."""
        first = "" if self.prefix else f"import sys; sys.path.insert(0, {str(self.root)!r})\n"
        return (
            f"{first}import {self.prefix}models.yolo as yolo, {self.prefix}utils.general as general\n"
            f"import {self.prefix}models.experimental as experimental\n"
        )

    def python(self, code: str, *argv: str, cwd: Path, env: dict[str, str] | None = None) -> Run:
        """Run code that may use `yolo`, `general` and `experimental` after a line `{host}`."""
        return run_python("-c", code.replace("{host}", self.imports), *argv, cwd=cwd, env={**self.env, **(env or {})})

    def script(self, name: str, *argv: str, cwd: Path, env: dict[str, str] | None = None) -> Run:
        """`python -m yolo_attn run NAME ...` in the host's folder."""
        script = str(self.root / name)
        return run_python("-m", "yolo_attn", "run", script, *argv, cwd=cwd, env={**self.env, **(env or {})})


@functools.lru_cache(maxsize=1)
def _config_folder() -> str:
    """A home for the host's settings, with a font, which v6.0 fetches when it is imported."""
    import matplotlib

    folder = tempfile.mkdtemp(prefix="yolo_attn_yolov5_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", Path(folder) / "Arial.ttf")
    return folder


def installed(requirement: str) -> tuple[str, ...]:
    """Return what PYTHONPATH needs for a host that `tools/prepare_hosts.py` installs, and for what it imports.

    Without it the test is skipped, and fails where CI is set: there nothing may be left out in silence.
    """
    if not prepare_hosts.is_ready():
        reason = f"{requirement} is not installed; 'python tools/prepare_hosts.py' does it, or says why it cannot"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = prepare_hosts.folder()
    return str(folder / requirement), str(folder / "needs")


def names() -> list[str]:
    """Every classic host that the tests are asked to walk."""
    return ["package", *filter(None, os.environ.get("YOLO_ATTN_YOLOV5", "").split(os.pathsep))]


def get(name: str) -> Classic:
    """Return a host by name."""
    if name == "package":
        path = installed(prepare_hosts.PACKAGE)
        return Classic("package", Path(path[0]) / "yolov5", "yolov5.", path)
    root = Path(name).resolve()
    if not (root / "models" / "yolo.py").is_file():
        pytest.fail(f"YOLO_ATTN_YOLOV5 names {name}, which is no YOLOv5 checkout")
    return Classic(root.name, root, "", ())


@pytest.fixture(params=names(), ids=lambda n: Path(n).name, scope="session")
def classic(request: pytest.FixtureRequest) -> Classic:
    """Each classic host in turn."""
    return get(request.param)
