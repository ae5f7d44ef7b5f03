"""Classic YOLOv5 for tests: the checkouts that ``YOLO_ATTN_YOLOV5`` names, and the `yolov5` package from the registry.

``YOLO_ATTN_YOLOV5=/path/to/v7.0:/path/to/master pytest tests/test_classic.py`` runs every test on each of them too.
The package is installed once in a session, without the dependencies that it never imports, into a folder of its own.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Run, run_python

PACKAGE = ("yolov5==7.0.14", "huggingface-hub<0.25")  # its own bound: it asks there before each training
# What it imports, by import name. boto3 and below: its train.py imports roboflow, whatever is trained on.
NEEDS = {
    "pandas": "pandas", "seaborn": "seaborn", "tqdm": "tqdm", "psutil": "psutil", "requests": "requests",
    "scipy": "scipy", "dateutil": "python-dateutil", "pytz": "pytz", "six": "six", "tzdata": "tzdata",
    "pkg_resources": "setuptools<81", "thop": "thop", "tensorboard": "tensorboard", "absl": "absl-py",
    "google.protobuf": "protobuf", "boto3": "boto3", "botocore": "botocore", "s3transfer": "s3transfer",
    "jmespath": "jmespath", "dotenv": "python-dotenv", "filetype": "filetype", "roboflow": "roboflow",
    "requests_toolbelt": "requests-toolbelt", "pillow_heif": "pillow-heif", "pillow_avif": "pillow-avif-plugin",
}  # fmt: skip


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
        here = Path(__file__).resolve().parents[1]
        path = [str(here), *self.path, os.environ.get("PYTHONPATH", "")]
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
    folder = tempfile.mkdtemp(prefix="yolo_attn_yolov5_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.lru_cache(maxsize=1)
def _package(base: Path) -> Classic | str:
    """The `yolov5` package, or why there is none; installed once, whichever of the workers comes first."""
    target, done = base / "yolov5-package", base / "yolov5-package.done"
    try:
        target.mkdir()
    except FileExistsError:
        since = time.monotonic()
        while not done.is_file() and time.monotonic() - since < 240:
            time.sleep(0.2)
    else:
        done.with_suffix(".part").write_text(_install(target), encoding="utf-8")
        done.with_suffix(".part").rename(done)
    trouble = done.read_text(encoding="utf-8") if done.is_file() else "another worker did not finish installing it"
    return trouble or Classic("package", target / "yolov5", "yolov5.", (str(target),))


def _install(target: Path) -> str:
    """Install, and return what went wrong."""
    missing = [r for n, r in NEEDS.items() if not _importable(n)]
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(target)]
    try:
        done = subprocess.run([*command, *PACKAGE, *missing], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        return f"pip took more than 180 s to fetch {PACKAGE[0]}"
    return f"pip cannot fetch {PACKAGE[0]}: {done.stderr.strip().splitlines()[-1:]}" if done.returncode else ""


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def names() -> list[str]:
    """Every classic host that the tests are asked to walk."""
    return ["package", *filter(None, os.environ.get("YOLO_ATTN_YOLOV5", "").split(os.pathsep))]


def get(name: str, base: Path) -> Classic:
    """Return a host by name; skip the test, with the reason, where there is none."""
    if name == "package":
        found = _package(base)
        if isinstance(found, str):
            pytest.skip(found)
        return found
    root = Path(name).resolve()
    if not (root / "models" / "yolo.py").is_file():
        pytest.fail(f"YOLO_ATTN_YOLOV5 names {name}, which is no YOLOv5 checkout")
    return Classic(root.name, root, "", ())


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(params=names(), ids=lambda n: Path(n).name, scope="session")
def classic(request: pytest.FixtureRequest, base: Path) -> Classic:
    """Each classic host in turn."""
    return get(request.param, base)
