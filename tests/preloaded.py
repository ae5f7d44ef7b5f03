"""Processes that start with torch imported: forked from one that has imported it and nothing of the kit or of a host.

Most tests of commands need a process of their own, and importing torch takes longer than what they test. `Preloaded`
keeps one Python that has imported a list of modules; each run is a fork of it that becomes what `python -c`, `python -m`
or `python script.py` would have been: arguments, working folder, environment, search path, standard streams, umask,
`__main__`, exit code and traceback. `Preloaded.takes` says for which runs that is so; the others start Python anew.

What was imported is kept out of `sys.modules` until the run imports it, so that what is lazy shows, and a library that is
missing can be played. What remains: the hashes of strings are those of the first process, and of a package all submodules
come at once; and at its end what modules hold is not taken apart piece by piece, which takes longer than most runs. A test
that depends on any of these starts its process with `cold=True`.

    python preloaded.py SOCKET MODULE...        # the process that is forked, started by `Preloaded`
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Preloaded", "read_once"]

# Read once, by the interpreter or by a library that is imported: another value needs a process of its own.
READ_ONCE = (
    "PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH", "PYTORCH", "CUDA_",
    "NUMPY", "MPL",
)  # fmt: skip
BY_RUN = {"PYTHONPATH"}  # what each run is given
TORCH_SEED = 67280421310721  # of each process that imports torch, in the versions that do not draw it
NEVER = ("yolo_attn", "ultralytics", "yolov5", "models", "utils")  # each process imports these itself


class Preloaded:
    """A Python with modules imported, and runs that are forked from it.

    Args:
        modules: What it imports.
        folder: Where its socket lies.
        path: What its PYTHONPATH is, where these modules are not installed.
    """

    def __init__(self, modules: list[str], folder: Path, path: tuple[str, ...] = ()) -> None:
        self.modules, self.folder, self.path = modules, folder, path
        self.process: subprocess.Popen[str] | None = None
        # As it is now: by the time of the first run, libraries may have set variables of their own in this process
        self.environment = read_once(os.environ)
        self.files: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self._address = str(folder / f"preloaded-{os.getpid()}-{len(modules)}")

    @staticmethod
    def possible() -> bool:
        """Whether this platform forks a process that has imported torch."""
        return sys.platform.startswith("linux") and sys.version_info >= (3, 10)

    def start(self) -> None:
        """Start the process unless it runs.

        Raises:
            RuntimeError: It cannot import the modules; with what it says.
        """
        with self._lock:
            if self.process is not None and self.process.poll() is None:
                return
            if len(self._address) > 100:  # a socket's name may not be longer
                raise RuntimeError(f"{self._address} is too long a name for a socket")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._address)
            theirs = read_once(os.environ)
            env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and k not in theirs}
            env.update(self.environment)
            if self.path:
                env["PYTHONPATH"] = os.pathsep.join(self.path)
            with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
                # Ends when its standard input does, so when this process ends, however it ends.
                self.process = subprocess.Popen(
                    [sys.executable, __file__, self._address, *self.modules], env=env, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=said, text=True, encoding="utf-8", cwd=self.folder,
                )  # fmt: skip
                assert self.process.stdout is not None
                line = self.process.stdout.readline()
                if not line:
                    said.seek(0)
                    raise RuntimeError(f"no process with {' '.join(self.modules)}:\n{said.read()}")
            self.files = json.loads(line)

    def stop(self) -> None:
        """End the process; runs that go on are left alone."""
        if self.process is not None:
            try:
                self.process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()

    def takes(self, argv: list[str], cwd: str, env: dict[str, str]) -> bool:
        """Whether a fork would be what a new process is."""
        self.start()
        if not argv or not os.path.isdir(cwd) or read_once(env) != self.environment:
            return False
        if argv[0] in ("-c", "-m"):
            first = cwd
        elif argv[0].startswith("-") or not os.path.isfile(os.path.join(cwd, argv[0])):
            return False
        else:
            first = os.path.dirname(os.path.realpath(os.path.join(cwd, argv[0])))
        return not self._hidden([first, *_entries(env, cwd)])

    def _hidden(self, path: list[str]) -> bool:
        """Whether a search path has another file for a module that is imported already, or one for the start of Python."""
        seen: set[str] = set()
        for entry in path:
            for name in os.listdir(entry) if os.path.isdir(entry) else ():
                stem = name.partition(".")[0]
                if stem in seen or not _importable(entry, name):
                    continue
                seen.add(stem)
                if stem in ("sitecustomize", "usercustomize"):
                    return True
                if stem in self.files and not (self.files[stem] or "").startswith(os.path.join(entry, stem)):
                    return True
        return False

    def run(
        self, argv: list[str], *, cwd: str, env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run as `subprocess.run` does with `capture_output`, text in UTF-8 and nothing on standard input.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was killed.
            RuntimeError: The process that is forked has ended.
        """
        end = time.monotonic() + timeout
        text = json.dumps({"argv": argv, "cwd": cwd, "env": env, "umask": _umask()}).encode()
        out, err = os.pipe(), os.pipe()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._address)
            socket.send_fds(connection, [len(text).to_bytes(8, "big")], [out[1], err[1]])
            connection.sendall(text)
        except BaseException:
            connection.close()  # else the process would wait for the rest of the request
            raise
        finally:
            os.close(out[1])
            os.close(err[1])
        with connection, os.fdopen(out[0], "rb") as o, os.fdopen(err[0], "rb") as e:
            answer = connection.makefile("rb")
            pid = json.loads(answer.readline() or b"0")
            told: dict[Any, list[bytes]] = {o: [], e: [], answer: []}
            with selectors.DefaultSelector() as waiting:
                for file in told:
                    waiting.register(file, selectors.EVENT_READ)
                while waiting.get_map():
                    ready = waiting.select(max(end - time.monotonic(), 0))
                    if not ready and time.monotonic() >= end:
                        os.kill(pid, signal.SIGKILL)
                        raise subprocess.TimeoutExpired([sys.executable, *argv], timeout)
                    for key, _ in ready:
                        data = os.read(key.fd, 65536)
                        told[key.fileobj].append(data)
                        if not data:
                            waiting.unregister(key.fileobj)
            code = b"".join(told[answer])
        if not pid or not code:
            raise RuntimeError(f"the process that runs are forked from has ended at {argv}")
        texts = [_text(b"".join(told[f])) for f in (o, e)]
        return subprocess.CompletedProcess([sys.executable, *argv], int(code), *texts)


def _text(data: bytes) -> str:
    return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _umask() -> int:
    with open("/proc/self/status", encoding="utf-8") as status:
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)


def read_once(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are read once, by the interpreter or by a library that is imported."""
    return {k: v for k, v in env.items() if k.startswith(READ_ONCE) and k not in BY_RUN}


def _entries(env: dict[str, str], cwd: str) -> list[str]:
    """Return what PYTHONPATH puts into the search path."""
    path = env.get("PYTHONPATH", "")
    return [os.path.abspath(os.path.join(cwd, p)) for p in path.split(os.pathsep)] if path else []  # an empty one is cwd


def _importable(entry: str, name: str) -> bool:
    if name.endswith((".py", ".pyc", *importlib.machinery.EXTENSION_SUFFIXES)):
        return True
    return "." not in name and os.path.isfile(os.path.join(entry, name, "__init__.py"))


# --- the process that is forked ------------------------------------------------------------------------------------


def _serve(address: str, modules: list[str]) -> tuple[dict[str, Any], list[int]]:
    """Fork for each run that is asked for, and tell how it ended; return in each fork, with what it is to run."""
    base = sys.path[1:]
    sys.path[:] = base
    before = set(sys.modules)
    along: dict[str, set[str]] = {}
    for name in modules:
        began = set(sys.modules)
        importlib.import_module(name)
        along.setdefault(name.partition(".")[0], _tops(set(sys.modules) - began))
    kept = _tops(set(sys.modules) - before) - _tops(before)
    known = {n.partition(".")[0] for n in sys.modules}
    assert not known & set(NEVER), known & set(NEVER)
    told = {n: getattr(sys.modules.get(n), "__file__", None) for n in known}
    # What these libraries do when a process ends: a table for a log that is off, operators that are taken back one by one
    if "torch._dynamo.utils" in sys.modules:
        atexit.unregister(getattr(sys.modules["torch._dynamo.utils"], "dump_compile_times", None))
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    gc.collect()
    gc.freeze()  # what all forks share is not touched by a collection in one of them
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    print(json.dumps(told), flush=True)
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as waiting:
        for file in (listener, wake, 0):
            waiting.register(file, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj == 0:
                    os._exit(0)
                if key.fileobj == wake:
                    os.read(wake, 4096)
                    _tell_ended(running)
                    continue
                connection, _ = listener.accept()
                size, streams, _, _ = socket.recv_fds(connection, 8, 2)
                text = connection.makefile("rb").read(int.from_bytes(size, "big"))
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for s in (listener, connection, *running.values()):
                        s.close()
                    os.close(wake)
                    os.close(ring)
                    return {**json.loads(text), "base": base, "kept": kept, "along": along}, streams
                running[pid] = connection
                connection.sendall(f"{pid}\n".encode())
                for stream in streams:
                    os.close(stream)


def _tops(names: set[str]) -> set[str]:
    return {n.partition(".")[0] for n in names}


class Kept(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that have been imported, and come into `sys.modules` when they are imported again, with their submodules.

    Args:
        names: Of packages and single modules.
        along: For some, which others their import imports.
    """

    def __init__(self, names: set[str], along: dict[str, set[str]]) -> None:
        self.along = along
        self.modules: dict[str, dict[str, types.ModuleType]] = {}
        for full in [n for n in sys.modules if n.partition(".")[0] in names]:
            self.modules.setdefault(full.partition(".")[0], {})[full] = sys.modules.pop(full)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find what is kept under a name; it is put back when it is imported."""
        module = self.modules.get(name, {}).get(name)
        if module is None:
            return None
        origin = getattr(module.__spec__, "origin", None)
        spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=hasattr(module, "__path__"))
        spec.loader_state = module, module.__spec__
        return spec

    def create_module(self, spec: Any) -> types.ModuleType:
        """Put back the module that was imported before, its submodules and what was imported along with it."""
        for top in {spec.name, *self.along.get(spec.name, ())}:
            sys.modules.update(self.modules.pop(top, {}))
        if not self.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
        module: types.ModuleType = spec.loader_state[0]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave it as it is."""
        module.__spec__ = module.__spec__.loader_state[1]  # type: ignore[union-attr]


def _tell_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as connection, contextlib.suppress(OSError):  # the asker may have given up
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(run: dict[str, Any], streams: list[int]) -> types.ModuleType:
    """Make this process what a new one would be; return its `__main__`."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate((null, *streams)):
        os.dup2(stream, number)
        os.close(stream)
    os.umask(run["umask"])
    os.chdir(run["cwd"])
    os.environ.clear()
    os.environ.update(run["env"])
    argv = run["argv"]
    script = argv[0] not in ("-c", "-m")
    first = os.path.dirname(os.path.realpath(argv[0])) if script else "" if argv[0] == "-c" else os.getcwd()
    sys.path[:] = [first, *dict.fromkeys([*_entries(run["env"], os.getcwd()), *run["base"]])]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    sys.orig_argv = [sys.executable, *argv]
    sys.argv[:] = argv if script else argv[:1] + argv[2:]
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own generator is seeded by the fork
    if "torch" in sys.modules and sys.modules["torch"].initial_seed() != TORCH_SEED:
        sys.modules["torch"].default_generator.seed()
    sys.meta_path.insert(0, Kept(run["kept"], run["along"]))
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    main.__loader__ = importlib.machinery.BuiltinImporter
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    return main


def _run(argv: list[str], main: types.ModuleType) -> None:
    if argv[0] == "-m":
        runpy._run_module_as_main(argv[1])  # type: ignore[attr-defined]  # what `python -m` itself calls
        return
    if argv[0] == "-c":
        code = compile(argv[1], "<string>", "exec", dont_inherit=True)
    else:
        main.__file__ = os.path.abspath(argv[0])
        main.__loader__ = importlib.machinery.SourceFileLoader("__main__", main.__file__)
        with io.open_code(main.__file__) as file:
            code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _end(status: object) -> None:
    """End as the interpreter does after `sys.exit(status)`, up to where it takes all modules apart."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.modules.pop("__main__", None)
    gc.collect()  # objects of the run may do something when they go
    import ctypes

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what libraries printed
    os._exit((status or 0) & 0xFF)


if __name__ == "__main__":
    _given, _streams = _serve(sys.argv[1], sys.argv[2:])
    _main = _become(_given, _streams)
    _status: object = None
    try:
        _run(_given["argv"], _main)
    except KeyboardInterrupt:
        raise  # the interpreter ends as after this
    except SystemExit as _exit:
        _status = _exit.code
    except BaseException as _error:  # told as the interpreter does, without the frames of this file
        _trace = _error.__traceback__
        while _trace is not None and _trace.tb_frame.f_code.co_filename == __file__:
            _trace = _trace.tb_next
        sys.excepthook(type(_error), _error.with_traceback(_trace), _trace)
        _status, _trace = 1, None
    del _main
    _end(_status)
