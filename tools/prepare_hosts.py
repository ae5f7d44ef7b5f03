"""Install additional hosts for the tests, each into a folder of its own.

    python tools/prepare_hosts.py        # once per checkout, about a minute; the first `pytest` does it as well

The folder is `tests/.hosts`, or that of YOLO_ATTN_TEST_HOSTS. It receives the `yolov5` package, whose pinned
requirements would change the environment, the lowest ultralytics that pyproject.toml allows, and missing dependencies.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "yolov5==7.0.14"
BESIDE = {PACKAGE: ["huggingface-hub<0.25"]}  # its own bound
# Dependencies of the hosts, by import name. boto3 and below: the package's train.py always imports roboflow.
NEEDS = {
    "pandas": "pandas", "seaborn": "seaborn", "tqdm": "tqdm", "psutil": "psutil", "requests": "requests",
    "scipy": "scipy", "dateutil": "python-dateutil", "pytz": "pytz", "six": "six", "tzdata": "tzdata",
    "pkg_resources": "setuptools<81", "thop": "thop", "tensorboard": "tensorboard", "absl": "absl-py",
    "google.protobuf": "protobuf", "boto3": "boto3", "botocore": "botocore", "s3transfer": "s3transfer",
    "jmespath": "jmespath", "dotenv": "python-dotenv", "filetype": "filetype", "roboflow": "roboflow",
    "requests_toolbelt": "requests-toolbelt", "pillow_heif": "pillow-heif", "pillow_avif": "pillow-avif-plugin",
    "cpuinfo": "py-cpuinfo", "hub_sdk": "hub-sdk",
}  # fmt: skip


def folder() -> Path:
    """Return the folder of the hosts."""
    return Path(os.environ.get("YOLO_ATTN_TEST_HOSTS") or ROOT / "tests" / ".hosts").resolve()


def lowest() -> str:
    """Return the lowest ultralytics that pyproject.toml allows, as a requirement."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'"ultralytics>=([\d.]+)', text)
    if found is None:
        raise ValueError("pyproject.toml names no lowest ultralytics")
    return f"ultralytics=={found.group(1)}"


def hosts() -> list[str]:
    """Return the requirements to install, each into the folder of its name."""
    return [PACKAGE, lowest()]


def is_ready() -> bool:
    """Whether everything is installed for this version of Python."""
    try:
        made = json.loads((folder() / "made.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return made["python"] == list(sys.version_info[:2]) and made["hosts"] == hosts() and set(made["needs"]) >= set(_lacking())


def prepare() -> None:
    """Install everything, unless it is there; the folder is created atomically.

    Raises:
        RuntimeError: pip fails; the message has its last line.
    """
    if is_ready():
        return
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".hosts-", dir=target.parent))
    try:
        needs = _lacking()
        wanted = {host: [host, *BESIDE.get(host, [])] for host in hosts()}
        wanted["needs"] = [NEEDS[n] for n in needs]
        with ThreadPoolExecutor() as side_by_side:  # most of the time pip waits
            list(side_by_side.map(lambda name: _pip(draft / name, wanted[name]), wanted))
        made = {"python": list(sys.version_info[:2]), "hosts": hosts(), "needs": needs}
        (draft / "made.json").write_text(json.dumps(made), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        draft.chmod(0o755)
        try:
            draft.rename(target)
        except OSError:
            if not is_ready():  # another process has created it meanwhile
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _pip(target: Path, wanted: list[str]) -> None:
    target.mkdir()
    if not wanted:
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(target)]
    try:
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"pip took more than 600 s to fetch {' '.join(wanted)}") from None
    if done.returncode:
        raise RuntimeError(f"pip cannot fetch {' '.join(wanted)}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def _lacking() -> list[str]:
    """Return the names in NEEDS that cannot be imported here, sorted."""
    return sorted(n for n in NEEDS if not _importable(n))


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    try:
        prepare()
    except RuntimeError as exc:
        raise SystemExit(str(exc)) from None
    print(folder())
