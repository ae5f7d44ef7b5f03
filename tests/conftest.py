"""What all tests share: a private home for caches and settings, and real hosts in processes of their own."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import locale
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

import prepare_hosts
import pytest
from preloaded import Preloaded, read_once

ROOT = Path(__file__).resolve().parents[1]

# Set before any host is imported: the hosts read these at import. pytest's own folders stay where they are; temporary files
# are each worker's own: what one leaves when it is killed, the next command removes, of whichever worker.
_place = os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_home = Path(tempfile.mkdtemp(prefix="yolo_attn_tests_", dir=_place))
(_home / "tmp").mkdir()
if os.name != "nt":
    os.environ["TMPDIR"] = tempfile.tempdir = str(_home / "tmp")
os.environ.update(
    YOLO_ATTN_CACHE=str(_home / "cache"),
    YOLO_ATTN_CONFIG_DIR=str(_home / "config"),
    YOLO_CONFIG_DIR=str(_home / "ultralytics"),
    MPLBACKEND="agg",
    YOLO_OFFLINE="true",
    YOLO_AUTOINSTALL="false",
)
(_home / "ultralytics").mkdir()
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors this small gain nothing from more; workers would fight over cores
# Memory that is freed is kept for the next tensor: glibc gives large blocks back, and takes them page by page each time, a
# sixth of the time of a training on the CPU. Read when a process begins: for the workers, and all that tests launch.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**29))
os.environ.setdefault("MALLOC_TOP_PAD_", str(2**24))
# Hundreds of processes would compile the kit and the hosts anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.pop("ULTRALYTICS_SAFE_LOAD", None)
os.environ.pop("YOLO_ATTN_PLUGINS", None)
STARTED = read_once(os.environ)  # cv2 and ultralytics set some when they are imported; a process of a test gets these


def pytest_configure(config: pytest.Config) -> None:
    """Install the hosts once, before any worker or test, where a test that is asked for runs on them."""
    if hasattr(config.option, "loadscopereorder"):  # xdist 3.7 and later would begin with the files of the most tests
        config.option.loadscopereorder = False
    if hasattr(config, "workerinput") or config.option.collectonly or not _asks_for_hosts(config):
        return
    if not prepare_hosts.is_ready():
        print(f"installing hosts into {prepare_hosts.folder()}, once", flush=True)
        with contextlib.suppress(RuntimeError):  # said by each test that misses them
            prepare_hosts.prepare()


# The files that take longest, first: with --dist loadfile, the last ones decide how long one worker waits for another.
DEAREST = (
    "training/test_train.py", "study/test_study.py", "export/test_export_configs.py", "modules/test_properties.py",
    "export/test_formats.py", "hook/test_classic.py", "export/test_deployment.py", "training/test_runs.py", "study/test_jobs.py",
    "test_docs.py", "weights/test_weights.py", "model_yaml/test_configs.py", "modules/test_compile.py", "export/test_export.py",
    "inside/test_fold.py", "export/test_export_modules.py", "model_yaml/test_families.py", "detectors/test_attach.py",
    "detectors/test_adopt.py", "registry/test_plugins.py", "hook/test_hosts.py", "study/test_report.py", "test_public_modules.py",
    "registry/test_user_modules.py", "test_preloaded.py", "inside/test_gate_log.py", "inside/test_explain.py",
    "inside/test_check.py", "runtime/test_runtime.py", "export/test_apart.py", "study/test_search.py",
)  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the dearest files."""
    rank = {ROOT / "tests" / name: n for n, name in enumerate(DEAREST)}
    assert all(file.is_file() for file in rank), "DEAREST names a file that is gone"
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported by now stays: spare each collection of garbage the walk over it, a tenth of the time of small tests."""
    gc.collect()
    gc.freeze()


def _asks_for_hosts(config: pytest.Config) -> bool:
    for arg in config.args:
        path = Path(config.invocation_params.dir, arg.partition("::")[0])
        files = path.rglob("test_*.py") if path.is_dir() else [path]
        if any("classic_host" in file.read_text(encoding="utf-8") for file in files if file.is_file()):
            return True
    return False


def pytest_sessionfinish(session: Any) -> None:
    import shutil

    for process in PRELOADED.values():
        process.stop()
    shutil.rmtree(_home, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draw the same random numbers in every run, whatever ran before, in the fixtures of a module as well."""
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def _state_of_one_test() -> Iterator[None]:
    """One thread for tensors this small, a host that logs to an open stream, and nothing left to the next test."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:  # a training sets it
        torch.set_num_threads(1)
    for handler in logging.getLogger("ultralytics").handlers:  # the stream of the test that imported it, which may be closed
        if isinstance(handler, logging.StreamHandler) and handler.stream.closed:
            handler.stream = sys.stdout  # setStream would flush the old one
    plugins = os.environ.get("YOLO_ATTN_PLUGINS")
    before = _state()
    yield
    # The kit names a loaded plug-in in the environment, for the processes that it launches; the next test has none.
    os.environ.pop("YOLO_ATTN_PLUGINS", None)
    if plugins is not None:
        os.environ["YOLO_ATTN_PLUGINS"] = plugins
    left = {k: (before[k], v) for k, v in _state().items() if k in before and before[k] != v}
    assert not left, f"this test leaves to the next what it changed (before, after): {left}"


def _state() -> dict[str, Any]:
    """What tests share in a process and must leave as it was; of torch from its import on."""
    found: dict[str, Any] = {k: os.environ.get(k) for k in ("PYTHONPATH", "ULTRALYTICS_SAFE_LOAD", "HOME", "CUDA_VISIBLE_DEVICES")}
    found.update({"environment": {k: v for k, v in os.environ.items() if k.startswith(("YOLO", "OMP_"))}})
    found.update({"folder": os.getcwd(), "disabled": logging.root.manager.disable, "level": logging.root.level})
    found.update({"interrupt": signal.getsignal(signal.SIGINT), "locale": locale.setlocale(locale.LC_ALL)})
    found.update({"recursion": sys.getrecursionlimit(), "script": sys.argv[:1], "main": sys.modules["__main__"]})
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "is_grad_enabled"):
        found.update({
            "gradients": torch.is_grad_enabled(), "type": torch.get_default_dtype(), "load": torch.load,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        })  # fmt: skip
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private memory of plug-ins, and no plug-in named by the environment."""
    monkeypatch.setenv("YOLO_ATTN_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("YOLO_ATTN_PLUGINS", raising=False)
    return tmp_path


def slow_but(names: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test that takes seconds each: all of them slow but a few that stand for their kinds."""
    names = list(names)
    assert set(kept) <= set(names), f"no such case: {sorted(set(kept) - set(names))}"
    return [n if n in kept else pytest.param(n, marks=pytest.mark.slow) for n in names]


class Run:
    """What a process printed and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def ok(self) -> str:
        """Return standard output; fail with everything printed if the process failed."""
        assert self.code == 0, f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self.out

    def mistake(self) -> str:
        """Return the one message of a user's mistake: exit code not 0, no traceback."""
        assert self.code != 0, f"it should have failed\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err + self.out, self.err
        return self.err


# What every process that builds a detector imports, and what classic YOLOv5 imports besides. No host: how the kit meets
# a host that is imported first, last or never is what many tests are about.
LIBRARIES = ["torch", "torch._dynamo", "cv2", "PIL.Image", "yaml"]
OF_TRAINING = [n for n in ("torchvision", "matplotlib.pyplot") if importlib.util.find_spec(n.partition(".")[0])]
OF_CLASSIC = ["torchvision", "requests", "psutil", "matplotlib.pyplot", "pandas", "seaborn"]
PRELOADED = {
    "": Preloaded([*LIBRARIES, *OF_TRAINING], _home),
    "needs": Preloaded([*LIBRARIES, *OF_CLASSIC], _home, (str(prepare_hosts.folder() / "needs"),)),
}


# MLflow is installed for one test, whose processes have a path of their own (study/test_jobs.py). To every other one it is
# missing, as to most users: ultralytics imports it for each training, which takes as long as the smallest of them.
WITHOUT = _home / "without"
WITHOUT.mkdir()
(WITHOUT / "mlflow.py").write_text("raise ModuleNotFoundError('not for this test', name='mlflow')\n", encoding="utf-8")


def run_python(
    *argv: str, cwd: Path | str | None = None, env: dict[str, str] | None = None, timeout: float = 900, cold: bool = False
) -> Run:
    """Run Python with the kit importable, from another folder than the checkout.

    Args:
        argv: Behind `python`.
        cwd: The working folder; the common temporary one by default.
        env: Variables beside those of this process.
        timeout: In seconds.
        cold: Start Python anew, for a test of what is imported, or when; otherwise torch is imported already (preloaded.py).
    """
    theirs = read_once(os.environ)
    full = {
        **{k: v for k, v in os.environ.items() if k not in theirs},
        **STARTED,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH"), str(WITHOUT)])),
    }
    full.update(env or {})
    folder, words = str(cwd or tempfile.gettempdir()), [os.fspath(a) for a in argv]
    if not cold and Preloaded.possible() and "YOLO_ATTN_TESTS_COLD" not in os.environ:
        needs = PRELOADED["needs"]
        process = needs if needs.path[0] in full["PYTHONPATH"].split(os.pathsep) else PRELOADED[""]
        if process.takes(words, folder, full):
            return Run(process.run(words, cwd=folder, env=full, timeout=timeout))
    return Run(
        subprocess.run(
            [sys.executable, *words], cwd=folder, env=full, capture_output=True, text=True,
            encoding="utf-8", timeout=timeout, stdin=subprocess.DEVNULL,
        )
    )  # fmt: skip


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., Run]:
    """Run a piece of Python in a process of its own whose working folder is a fresh one."""

    def run(code: str, *argv: str, cwd: Path | None = None, env: dict[str, str] | None = None, cold: bool = False) -> Run:
        return run_python("-c", textwrap.dedent(code), *argv, cwd=cwd or tmp_path, env=env, cold=cold)

    return run


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Run]:
    """Run `yolo-attn ...` in a process of its own whose working folder is a fresh one."""

    def run(*argv: str, cwd: Path | None = None, env: dict[str, str] | None = None, cold: bool = False) -> Run:
        return run_python("-m", "yolo_attn", *argv, cwd=cwd or tmp_path, env=env, cold=cold)

    return run


# Behind a piece of code whose functions `case_...` are tests: runs each, and hands over what came of it.
_TELL = """
import json as _json, traceback as _traceback
_told = {}
for _name, _case in [(n, f) for n, f in globals().items() if n.startswith("case_")]:
    try:
        _case()
        _told[_name] = ""
    except BaseException:
        _told[_name] = _traceback.format_exc()
print("CASES" + _json.dumps(_told))
"""


class Cases:
    """Several tests in one process, where a host is dear to import and one test does not disturb the next.

    Args:
        code: Python text; each function `case_NAME` in it is a test, run in the order of the text.
    """

    def __init__(self, code: str) -> None:
        self.code = textwrap.dedent(code) + _TELL
        self.names = re.findall(r"^def case_(\w+)", textwrap.dedent(code), re.MULTILINE)
        self._told: dict[Any, dict[str, str]] = {}

    def check(self, name: str, run: Callable[[str], Run], key: Any = None) -> None:
        """Fail with a case's traceback if it failed; the process runs once for each key.

        Args:
            name: One of `names`.
            run: Runs the code.
            key: What the outcome depends on, such as the host.
        """
        if key not in self._told:
            self._told[key] = json.loads(run(self.code).ok().rpartition("CASES")[2])
        trouble = self._told[key][f"case_{name}"]
        assert not trouble, trouble
