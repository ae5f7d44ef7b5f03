"""Build every config at every size on every host, each host in a folder of its own, and print a table.

    python tools/host_matrix.py                                   # every version below, about 1 GB of downloads
    YOLO_ATTN_YOLOV5=~/yolov5-v6.0:~/yolov5 python tools/host_matrix.py   # also these checkouts of classic YOLOv5
    python tools/host_matrix.py --hosts ultralytics==8.0.239 --configs yolov5_se.yaml --sizes n s --into /tmp/hosts

Hosts are installed with `pip install --no-deps --target`, and their dependencies, except torch, into a shared folder.
The exit code is 1 if a cell that should build does not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOSTS = [
    *(f"ultralytics=={v}" for v in ("8.0.239", "8.1.0", "8.1.47", "8.2.0", "8.2.103", "8.3.0", "8.3.253")),
    *(f"ultralytics=={v}" for v in ("8.4.0", "8.4.100", "8.4.190")),
    "yolov5==7.0.14",
]
CONFIGS = ["yolov5_se.yaml", "yolov5_eca.yaml", "yolov5-p6_se.yaml", "yolov8_se.yaml", "yolo11_se.yaml"]
SIZES = "nsmlx"
# Packages that some hosts import and that may be missing beside torch and the kit.
NEEDS = ["pandas", "seaborn", "tqdm", "psutil", "requests", "scipy", "python-dateutil", "pytz", "six", "tzdata", "thop",
         "py-cpuinfo", "setuptools<81", "hydra-core<1.4", "omegaconf<2.4", "antlr4-python3-runtime==4.9.3", "hub-sdk",
         "sentry-sdk",
         # IPython and its dependencies, which YOLOv5 v7.0 imports first
         "ipython", "traitlets", "jedi", "parso", "prompt-toolkit", "wcwidth", "pygments", "matplotlib-inline",
         "stack-data", "executing", "asttokens", "pure-eval", "pexpect", "ptyprocess", "ipython-pygments-lexers",
         "decorator", "gitpython", "gitdb", "smmap"]  # fmt: skip

# Runs in the host's process: builds each model and reports the result.
BUILD = """
import json, logging, os, sys, warnings
warnings.filterwarnings("ignore")
import yolo_attn
from yolo_attn.errors import YoloAttnError
root, names = sys.argv[1], json.loads(sys.argv[2])
if root == "ultralytics":
    from ultralytics.nn import tasks
    tasks.LOGGER.setLevel(logging.ERROR)
    build = tasks.DetectionModel  # writes its table as well, to nobody
    version = __import__("ultralytics").__version__
else:
    if root == "yolov5":
        import yolov5.models.yolo as yolo
    else:
        sys.path.insert(0, root)
        import models.yolo as yolo
    yolo.LOGGER.setLevel(logging.ERROR)
    build = yolo.Model
hooked = yolo_attn.installed()
cells = {}
for name in names:
    try:
        cells[name] = sum(p.numel() for p in build(name).parameters())
    except YoloAttnError as exc:
        cells[name] = str(exc)
print("CELLS" + json.dumps([hooked, cells, [str(e) for e in yolo_attn.hook.install.failures().values()]]))
"""


def main() -> int:
    """Build, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checkouts = [p for p in os.environ.get("YOLO_ATTN_YOLOV5", "").split(os.pathsep) if p]
    parser.add_argument("--hosts", nargs="+", default=[*HOSTS, *checkouts], help="name==version, or path of a checkout")
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--into", type=Path, help="install the hosts here and keep them (default: a temporary folder)")
    parser.add_argument("--list", action="store_true", help="print the hosts and stop")
    args = parser.parse_args()
    if args.list:
        print("\n".join(args.hosts))
        return 0
    with tempfile.TemporaryDirectory(prefix="host_matrix_") as scratch:
        into = args.into or Path(scratch)
        needs = install(into / "needs", NEEDS)
        good = True
        print("| host | config | " + " | ".join(args.sizes) + " |\n|---|---|" + "---|" * len(args.sizes))
        for host in args.hosts:
            good &= row(host, args.configs, args.sizes, into, needs)
    return 0 if good else 1


def install(target: Path, wanted: list[str]) -> Path:
    """Install packages into a folder, once."""
    if not target.is_dir():
        wanted = [w for w in wanted if not _here(w)]
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *wanted]
        subprocess.run(command, check=True, stderr=subprocess.PIPE)
    return target


def _here(wanted: str) -> bool:
    """Whether a package is installed here and no version of it is requested."""
    try:
        importlib.metadata.distribution(wanted)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return not set(wanted) & set("<=")


def named(config: str, size: str) -> str:
    """Add a scale to a name: `yolov5_se.yaml` becomes `yolov5s_se.yaml`, `yolov5-p6_se.yaml` `yolov5s6_se.yaml`."""
    family, _, rest = config.partition("_")
    six = family.endswith("-p6")
    return f"{family.replace('-p6', '')}{size}{'6' if six else ''}_{rest}"


def row(host: str, configs: list[str], sizes: list[str], into: Path, needs: Path) -> bool:
    """Build and print one host's cells; return whether each is as expected."""
    package, pinned, _ = host.partition("==")
    path = [str(ROOT), str(needs)]
    root = package
    if pinned:
        path.insert(1, str(install(into / host, [host])))
    else:
        root = str(Path(host).expanduser().resolve())
    path += filter(None, [os.environ.get("PYTHONPATH")])  # the packages above were looked up here
    env = {
        **os.environ, "PYTHONPATH": os.pathsep.join(path), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1", "YOLOV5_CONFIG_DIR": str(into), "YOLO_CONFIG_DIR": str(into),
    }  # fmt: skip
    names = [named(c, s) for c in configs for s in sizes]
    done = subprocess.run(
        [sys.executable, "-c", BUILD, root, json.dumps(names)], env=env, cwd=into, capture_output=True, text=True
    )
    label = host if pinned else Path(root).name
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(f"| {label} | does not import: {last} |" + " |" * len(sizes), flush=True)
        return False
    hooked, cells, failures = json.loads(done.stdout.rpartition("CELLS")[2])
    if not hooked:
        print(f"| {label} | not patched: {'; '.join(failures) or 'not recognised'} |" + " |" * len(sizes), flush=True)
        return False
    good = True
    for config in configs:
        told = [cells[named(config, s)] for s in sizes]
        print(f"| {label} | {config} | " + " | ".join(map(cell, told)) + " |", flush=True)
        good &= config.startswith("yolov5") <= all(isinstance(t, int) for t in told)
    return good


def cell(told: int | str) -> str:
    """Return the number of parameters, or why the host refuses."""
    if isinstance(told, int):
        return f"{told:,}"
    return "refused: " + told.partition(": ")[2].partition(".")[0]


if __name__ == "__main__":
    raise SystemExit(main())
