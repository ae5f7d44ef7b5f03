"""A run that is forked from a process with torch is what a new process is: both ways are asked and compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Run, run_python
from preloaded import Preloaded

pytestmark = pytest.mark.skipif(not Preloaded.possible(), reason="every process is a new one here")

FACTS = """
import json, os, signal, sys, threading
print(json.dumps(dict(
    argv=sys.argv, orig=getattr(sys, "orig_argv", None), path=sys.path, cwd=os.getcwd(), env=dict(os.environ), name=__name__,
    spec=str(__spec__ and (__spec__.name, __spec__.origin)), file=globals().get("__file__"), package=__package__, loader=str(type(__loader__).__name__),
    main=sys.modules["__main__"].__dict__ is globals(), names=sorted(n for n in globals() if n != "__cached__"),
    read=sys.stdin.read(), ends=[s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)],
    codes=[(s.encoding, s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)],
    umask=os.umask(0), session=os.getsid(0) == os.getsid(os.getppid()), threads=threading.active_count(),
    signals=[str(signal.getsignal(s)) for s in sorted(signal.valid_signals())], blocked=len(signal.pthread_sigmask(0, [])),
    flags=str(sys.flags), finders=[str(f).partition(" at 0x")[0] for f in sys.meta_path if "Kept" not in str(f)], files=sorted(os.listdir("/proc/self/fd"))[:3],
    annotations=str(__annotations__) if sys.version_info < (3, 14) else "", future="annotations" in globals(),
)), flush=True)
def f(x: Undefined if False else int): pass
print(f.__annotations__, file=sys.stderr)
"""


def both(*argv: str, cwd: Path, **options: object) -> tuple[Run, Run]:
    """The same run as a fork and anew."""
    runs = [run_python(*argv, cwd=cwd, cold=cold, **options) for cold in (False, True)]  # type: ignore[arg-type]
    return runs[0], runs[1]


@pytest.mark.parametrize("way", ["-c", "-m", "script", "relative script"])
def test_what_a_process_sees(way: str, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "facts.py").write_text(FACTS, encoding="utf-8")
    argv = {"-c": ["-c", FACTS], "-m": ["-m", "facts"], "script": [str(tmp_path / "beside" / "facts.py")]}.get(way)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "beside"), "", "relative", str(tmp_path)]), "MINE": "ü \udcff"}
    before = os.umask(0o027)
    try:
        warm, cold = both(*(argv or ["beside/facts.py"]), "-x", "a b", cwd=tmp_path, env=env)
    finally:
        os.umask(before)
    a, b = (json.loads(r.ok()) for r in (warm, cold))
    for name in b:
        assert a[name] == b[name], name
    assert warm.err == cold.err and b["umask"] == 0o027 and b["env"]["MINE"] == "ü \udcff"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.exit('a reason')",
        "raise SystemExit",
        "import os; os._exit(7)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import sys; sys.excepthook = lambda *e: print('HOOK', e[0]); 1 / 0",
        "def f(): 1 / 0\ntry: f()\nexcept ZeroDivisionError as e: raise ValueError('ä') from e",
        "def broken(:",
        "import atexit, threading, time\natexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\nprint('main')",
        "import atexit; atexit.register(print, 'last'); raise OSError(2, 'no')",
        "import sys; sys.stdout.write('no newline'); sys.stderr.write('a\\r\\nb\\rc')",
        "import sys; print(sys.stdin.read() == '', input())",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import sys; print(sys.argv, sys.path[0])', 'x'])",
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(0.3); print(1)']); print(0)",
        "import atexit\nclass A:\n    def __del__(self): print('gone', atexit.__name__)\na = A(); a.itself = a; b = A()\n"
        "def f(): return b\natexit.register(print, 'last')",
        "class A:\n    def __del__(self): print('gone')\na = A(); 1 / 0",
        "import sys, weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'gone'); sys.exit(True)",
        "import sys; print('out'); sys.exit(['a', 1])",
        "import sys; sys.exit(-1)",
        "import ctypes; ctypes.CDLL(None).puts(b'in C')",
        "import threading, time; threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)], daemon=True).start()",
        "import concurrent.futures as c, time; c.ThreadPoolExecutor().submit(lambda: (time.sleep(0.2), print('done')))",
        "import sys, os; sys.stdout = open(os.devnull, 'w'); print('nowhere'); sys.stderr.close()",
        "import multiprocessing as m\nprint(m.get_context('fork').Pool(1).map(len, ['abc']))",
        "import multiprocessing as m\nif __name__ == '__main__': print(m.get_context('spawn').Pool(1).map(len, ['abc']))",
    ],
)  # fmt: skip
def test_how_a_process_ends(code: str, tmp_path: Path) -> None:
    warm, cold = both("-c", code, cwd=tmp_path)
    assert (warm.code, warm.out, warm.err) == (cold.code, cold.out, cold.err)


@pytest.mark.parametrize("argv", [["-m", "no_such_module"], ["-m", "json.tool", "missing.json"], ["broken.py"], ["absent.py"], ["-V"]])
def test_modules_and_scripts_end_alike(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import sys\nprint(sys.argv)\nraise KeyError('x')\n", encoding="utf-8")
    warm, cold = both(*argv, cwd=tmp_path)
    assert (warm.code, warm.out, warm.err) == (cold.code, cold.out, cold.err)


LOADED = """
import importlib.util, os, sys, time
lazy = sorted({"torch", "numpy", "sympy", "yaml", "unittest", "asyncio", "logging", "ultralytics", "yolo_attn"} & set(sys.modules))
found = importlib.util.find_spec("yaml") is not None
began = time.process_time()
import torch
print("anew" if os.getppid() == int(sys.argv[1]) else "forked", lazy, found, type(torch.__spec__.loader).__name__)
print(sorted({"numpy", "logging", "ultralytics"} & set(sys.modules)), torch.get_num_threads(), torch.nn.Linear(2, 2).weight.shape)
print(torch.initial_seed() if len(str(torch.initial_seed())) == 14 else "drawn")
import torch._dynamo, yaml, cv2
print([f for f in map(str, sys.meta_path) if "Kept" in f], time.process_time() - began, file=sys.stderr)
"""


def test_libraries_are_imported_when_the_run_imports_them(tmp_path: Path) -> None:
    warm, cold = both("-c", LOADED, str(os.getpid()), cwd=tmp_path)
    assert warm.ok().startswith("forked [] True SourceFileLoader\n['logging', 'numpy'] 1 ")
    assert cold.ok() == warm.out.replace("forked", "anew")
    assert float(warm.err.split()[-1]) < 0.5 * float(cold.err.split()[-1])  # what it is for


def test_a_library_that_is_missing_can_be_played(tmp_path: Path) -> None:
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch": raise ImportError("played")
sys.meta_path.insert(0, Missing())
try: import torch
except ImportError as exc: print(exc, "torch" in sys.modules)
sys.modules["numpy"] = None
import numpy
"""
    warm, cold = both("-c", code, cwd=tmp_path)
    assert (warm.code, warm.out, warm.err) == (cold.code, cold.out, cold.err) and warm.out == "played False\n"


def test_one_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    code = (
        "import os, random, sys, tempfile, numpy, torch\n"
        "print(torch.get_num_threads(), torch.get_default_dtype(), os.environ.get('LEFT'), hasattr(torch, 'left'), 'left' in sys.modules)\n"
        "print(random.random(), numpy.random.rand(), tempfile.mktemp(), file=sys.stderr)\n"
        "if len(str(torch.initial_seed())) != 14: print(torch.rand(1).item(), file=sys.stderr)\n"
        "torch.set_num_threads(2); torch.set_default_dtype(torch.float64); os.environ['LEFT'] = '1'; torch.left = sys.modules['left'] = 1\n"
    )
    first, second = (run_python("-c", code, cwd=tmp_path) for _ in range(2))
    assert first.ok() == second.ok() == "1 torch.float32 None False False\n"
    assert not set(first.err.split()) & set(second.err.split())  # no random number comes twice


@pytest.mark.parametrize("hides", ["env", "library", "start", "flag"])
def test_what_a_fork_could_not_be_starts_anew(hides: str, tmp_path: Path) -> None:
    if hides in ("library", "start"):
        (tmp_path / {"library": "yaml.py", "start": "sitecustomize.py"}[hides]).write_text("print('MINE')", encoding="utf-8")
    env = {"env": {"PYTHONHASHSEED": "0"}, "start": {"PYTHONPATH": str(tmp_path)}}.get(hides, {})
    argv = ["-c", "import yaml; " + WHOSE, str(os.getpid())]
    run = run_python(*(["-O"] if hides == "flag" else []), *argv, cwd=tmp_path, env=env)
    assert "anew" in run.ok() and ("MINE" in run.out) == (hides in ("library", "start"))
    assert "forked" in run_python(*argv, cwd=tmp_path.parent).ok()


def test_a_run_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    code = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    timeout = 0.5
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text(encoding="utf-8"):  # killed before it began
        timeout *= 2
        with pytest.raises(subprocess.TimeoutExpired):
            run_python("-c", code, cwd=tmp_path, timeout=timeout)
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("it still runs")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Preloaded]:
    process = Preloaded(["json"], tmp_path)
    yield process
    process.stop()


def test_it_ends_with_its_owner_and_starts_again(own: Preloaded, tmp_path: Path) -> None:
    env = dict(os.environ)
    assert own.takes(["-c", ""], str(tmp_path), env) and own.process is not None
    own.process.kill()
    own.process.wait()
    with pytest.raises((RuntimeError, OSError)):
        own.run(["-c", ""], cwd=str(tmp_path), env=env, timeout=300)
    assert own.takes(["-c", ""], str(tmp_path), env)
    assert own.run(["-c", "print(1)"], cwd=str(tmp_path), env=env, timeout=300).stdout == "1\n"
    interrupt = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"  # where torch is, Python itself exits with 1
    assert own.run(["-c", interrupt], cwd=str(tmp_path), env=env, timeout=300).returncode == -signal.SIGINT
    own.stop()
    assert own.process.returncode == 0


def test_what_libraries_set_before_the_first_run_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose first test imports a host, and whose second starts a process."""
    late = Preloaded(["json"], tmp_path)
    env = dict(os.environ)
    monkeypatch.setenv("LD_LIBRARY_PATH", "7")
    assert late.takes(["-c", "pass"], str(tmp_path), env)
    assert late.run(["-c", "import os; print(os.environ.get('LD_LIBRARY_PATH'))"], cwd=str(tmp_path), env=env, timeout=300).stdout == f"{env.get('LD_LIBRARY_PATH')}\n"
    late.stop()


def test_a_request_that_cannot_be_made_leaves_the_process_ready(tmp_path: Path) -> None:
    process = Preloaded(["json"], tmp_path)
    env = dict(os.environ)
    process.start()
    with pytest.raises(TypeError) as held:  # keeps the frames, and what they hold
        process.run(["-c", tmp_path], cwd=str(tmp_path), env=env, timeout=300)  # type: ignore[list-item]
    assert process.run(["-c", "print(1)"], cwd=str(tmp_path), env=env, timeout=300).stdout == "1\n" and held
    process.stop()
    assert run_python("-c", "import sys; print(sys.argv[1])", tmp_path, cwd=tmp_path).ok() == f"{tmp_path}\n"  # type: ignore[arg-type]


def test_a_module_that_cannot_be_imported_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no_such_library"):
        Preloaded(["no_such_library"], tmp_path).start()
    (tmp_path / "utils.py").touch()
    with pytest.raises(RuntimeError, match="AssertionError"):
        Preloaded(["utils"], tmp_path, (str(tmp_path),)).start()


WHOSE = "import os, sys; print('anew' if os.getppid() == int(sys.argv[1]) else 'forked', os.environ.get('LD_LIBRARY_PATH'))"


def test_what_libraries_set_here_does_not_reach_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing cv2 and ultralytics sets variables; every later process would start anew."""
    before = run_python("-c", WHOSE, str(os.getpid()), cwd=tmp_path).ok()
    for name in ("LD_LIBRARY_PATH", "TORCH_CPP_LOG_LEVEL", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, "7")
    assert run_python("-c", WHOSE, str(os.getpid()), cwd=tmp_path).ok() == before and before.startswith("forked")
    given = run_python("-c", WHOSE, str(os.getpid()), cwd=tmp_path, env={"LD_LIBRARY_PATH": "8"}).ok()
    assert given == "anew 8\n"
