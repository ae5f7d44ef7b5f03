"""A run's folder: one process at a time, whole checkpoints whenever it is killed, and what can go on in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, run_python

from yolo_attn import cli
from yolo_attn.errors import CheckpointError, FileError
from yolo_attn.system import locks
from yolo_attn.training import runs
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", Recipe(train=8, val=4, size=64))


def options(shapes: Path, epochs: int) -> list[str]:
    return [
        "--cfg", "yolov5n_se.yaml", "--data", str(shapes), "--epochs", str(epochs), "--img", "64", "--batch", "4",
        "--noplots", "--device", "cpu",
    ]  # fmt: skip


def checkpoint(path: Path, epoch: int, epochs: int = 10, optimizer: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": epoch, "optimizer": optimizer, "train_args": {"epochs": epochs}}, path)
    return path


def test_resume_takes_the_newest_unfinished_run(tmp_path: Path) -> None:
    """Not a finished one, though it is newer; and says so where all are finished."""
    old = checkpoint(tmp_path / "exp" / "weights" / "last.pt", 2, optimizer={})
    done = checkpoint(tmp_path / "exp2" / "weights" / "last.pt", -1)
    over = checkpoint(tmp_path / "exp3" / "weights" / "last.pt", 9, optimizer={})  # killed before the strip
    for age, path in enumerate((old, done, over)):
        os.utime(path, (1e9 + age, 1e9 + age))
    assert runs.checkpoint_to_resume(True, tmp_path) == old
    old.unlink()
    with pytest.raises(CheckpointError, match=rf"{tmp_path}.*{over.parent.parent}, is finished.*--weights"):
        runs.checkpoint_to_resume(True, tmp_path)


def test_resume_of_a_run_without_a_checkpoint_says_how_to_begin_again(tmp_path: Path) -> None:
    run = tmp_path / "bob's" / "exp"
    (run / "weights").mkdir(parents=True)
    for name in (run, run / "weights" / "last.pt"):
        with pytest.raises(CheckpointError, match="--resume.*not found"):
            runs.checkpoint_to_resume(str(name), tmp_path)
    (run / "results.csv").write_text("epoch\n1\n")
    for name in (run, run / "weights" / "last.pt"):
        with pytest.raises(CheckpointError, match=r"nothing to resume: .*--exist-ok --project '.*bob.*' --name exp"):
            runs.checkpoint_to_resume(str(name), tmp_path)
    with pytest.raises(CheckpointError, match=r"--resume: .*exp: nothing to resume: .*--name exp"):
        runs.checkpoint_to_resume(True, tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_the_log_holds_each_epoch_once(tmp_path: Path, first: int) -> None:
    log = tmp_path / "results.csv"
    rows = [f"{first + k},0.5\n" for k in range(4)]
    log.write_text("epoch,loss\n" + "".join(rows) + f"{first + 3},0.25\n{first + 4},0.1\n{first + 2},0.")
    runs.trim_log(log, 3, first=first)
    assert log.read_text() == "epoch,loss\n" + "".join(rows[:3])
    stamp = log.stat().st_mtime_ns
    runs.trim_log(log, 3, first=first)
    assert log.stat().st_mtime_ns == stamp


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = """
    import sys
    from pathlib import Path
    from yolo_attn.training import runs
    with runs.held(Path(sys.argv[1])):
        pass
    """
    with runs.held(tmp_path), runs.held(tmp_path):
        message = run_python("-c", textwrap.dedent(code), str(tmp_path))
        assert f"FileError: {tmp_path}: process {os.getpid()} on " in message.err
        assert "is training there" in message.err and "--name" in message.err
    run_python("-c", textwrap.dedent(code), str(tmp_path)).ok()
    assert list(tmp_path.iterdir()) == []


# Holds a folder, and launches what trains in it, as for classic YOLOv5.
LAUNCHES = """
import os, subprocess, sys
from pathlib import Path
from yolo_attn.training import runs
with runs.held(Path(sys.argv[1])):
    os.environ[runs.LAUNCHER] = runs.launcher(Path(sys.argv[1]))
    subprocess.run([sys.executable, "-m", "yolo_attn", "run", *sys.argv[2:]], check=True)
"""
TRAINS = """
import os, sys, time
assert "YOLO_ATTN_LAUNCHER" not in os.environ
for k in range(10000):
    print(k, file=open(sys.argv[1], "a"))
    time.sleep(0.05)
"""


@posix
def test_what_a_killed_process_launched_ends_before_another_trains_there(tmp_path: Path) -> None:
    folder, script, log = tmp_path / "exp", tmp_path / "trains.py", tmp_path / "log"
    script.write_text(TRAINS, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", LAUNCHES, str(folder), str(script), str(log)], env=env, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    with pytest.raises(FileError, match=f"process {process.pid} on .* is training there"), runs.held(folder):
        pass
    with pytest.raises(locks.Busy):
        locks.take(folder / runs.WORKER)
    process.kill()
    process.wait()
    with runs.held(folder):  # once what it launched has ended
        before = log.read_text()
        time.sleep(1)
        assert log.read_text() == before, "an orphan goes on training"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("moment", ["take", "note"])
def test_a_folder_is_free_after_ctrl_c_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """The process may live on, as a notebook's does."""
    module, own, calls = (locks, locks.take, [0]) if moment == "take" else (runs, runs.note, [1])

    def interrupted(path: Path) -> str:
        done, calls[0] = own(path), calls[0] + 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return str(done or "")

    monkeypatch.setattr(module, moment, interrupted)
    with pytest.raises(KeyboardInterrupt), runs.held(tmp_path):
        raise AssertionError("not held")
    assert calls == [2] and list(tmp_path.iterdir()) == []


@posix
def test_a_host_that_empties_its_folder_costs_another_no_lock(tmp_path: Path) -> None:
    """As ultralytics does before it launches a process for each GPU."""
    with runs.held(tmp_path / "exp"):
        shutil.rmtree(tmp_path / "exp")
        (tmp_path / "exp").mkdir()
        lock = tmp_path / "exp" / ".yolo_attn.lock"
        lock.write_text("another's")
    assert lock.read_text() == "another's"


def test_who_trains_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in a callback of another is its own; a folder that is gone is one message in a script's process too."""
    monkeypatch.setenv(runs.LAUNCHER, runs.launcher(tmp_path))
    with runs.joined() as launched:
        assert not launched and list(tmp_path.iterdir()) == [] and runs.LAUNCHER not in os.environ
    monkeypatch.setenv(runs.LAUNCHER, f"00000000-1-1 {tmp_path / 'gone'}")  # on another machine, of which nothing is known
    monkeypatch.setattr(runs.processes, "end_with", lambda launcher: None)
    with pytest.raises(FileError, match="gone: cannot be written: No such file"), runs.joined():
        pass


# Two ranks on a CPU, as the host has one for each GPU.
RANKS = """
import os
from datetime import timedelta
import torch
import yolo_attn
Parallel = torch.nn.parallel.DistributedDataParallel
torch.nn.parallel.DistributedDataParallel = lambda model, device_ids=None, **words: Parallel(model, **words)
class Ranks(yolo_attn.Trainer):
    def __init__(self, *args, **words):
        super().__init__(*args, **words)
        self.world_size, self.ddp = 2, "LOCAL_RANK" not in os.environ
    def _setup_ddp(self):
        torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=2, timeout=timedelta(seconds=60))
"""
TRAINS_ON_TWO = """
import sys
from ranks import Ranks
from ultralytics import YOLO
from yolo_attn.system.shell import ready
with ready():
    YOLO("yolov5n_se.yaml").train(
        trainer=Ranks, data=sys.argv[1], epochs=300, imgsz=64, batch=4, device="cpu", plots=False, workers=0, amp=False,
        project=sys.argv[2], name="exp", exist_ok=True,
    )
"""


@posix
@pytest.mark.slow
def test_workers_of_several_devices_end_with_the_command(tmp_path: Path, shapes: Path) -> None:
    """The host launches them by a process that it kills when SIGTERM ends the command."""
    pytest.importorskip("cloudpickle")
    (tmp_path / "ranks.py").write_text(RANKS, encoding="utf-8")
    (tmp_path / "train.py").write_text(TRAINS_ON_TWO, encoding="utf-8")
    folder, log = tmp_path / "runs" / "exp", tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "train.py"), str(shapes), str(tmp_path / "runs")], cwd=tmp_path, stdout=stream,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (folder / "weights" / "last.pt").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    assert (folder / runs.WORKER).is_file(), log.read_text()[-3000:]
    process.terminate()
    process.wait(timeout=60)
    with runs.held(folder):
        before = (folder / "results.csv").read_text()
        time.sleep(2)
        assert (folder / "results.csv").read_text() == before, "the workers go on training"


def test_a_strip_that_fails_leaves_the_checkpoint(tmp_path: Path) -> None:
    """`torch.save` to a path, as both hosts strip; given back afterwards."""
    target = checkpoint(tmp_path / "last.pt", 1)
    before, original = target.read_bytes(), torch.save

    class Unwritable:
        def __reduce__(self) -> Any:
            raise OSError(28, "No space left on device")

    with runs.whole_checkpoints(torch):
        with pytest.raises(OSError, match="No space left"):
            torch.save({"model": torch.zeros(1000), "bad": Unwritable()}, target)
        assert target.read_bytes() == before
        torch.save({"epoch": -1}, target)
        torch.save({"epoch": -1}, (tmp_path / "other").open("wb"))
    assert torch.save is original
    assert torch.load(target) == {"epoch": -1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "other"]


def test_where_a_resumed_run_writes_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, copy = tmp_path / "exp", tmp_path / "copy"
    last = checkpoint(copy / "weights" / "last.pt", 1)
    with caplog.at_level("INFO", "yolo_attn"):
        assert runs.folder_to_resume(checkpoint(run / "weights" / "last.pt", 1), run) == run
        assert caplog.messages == []
        assert runs.folder_to_resume(last, run) == copy
        assert (
            len(caplog.messages) == 1 and str(run) in caplog.messages[0] and f"resumed in {copy}" in caplog.messages[0]
        )
        caplog.clear()
        alone = checkpoint(tmp_path / "last.pt", 1)
        assert runs.folder_to_resume(alone, run) == run
        assert str(run) in caplog.messages[0]


# Kills the process at a chosen call; argv: function, how many calls before, the command.
KILL = """
import os, signal, sys
import torch
from yolo_attn import cli, files
name, left = sys.argv[1], [int(sys.argv[2])]

def deadly(function):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            if name == "fsync":  # half of a draft is written
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

if name == "strip":  # in the middle of the host's own save, wherever it writes
    from ultralytics.engine import trainer
    original = trainer.strip_optimizer
    def strip(f, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            save = torch.save
            def half(obj, f, *more, **words):
                save(obj, f, *more, **words)
                if hasattr(f, "truncate"):
                    f.truncate(1000)
                else:
                    os.truncate(f, 1000)
                os.kill(os.getpid(), signal.SIGKILL)
            files_write = files.write_bytes
            def write(target, data, **words):
                with files.replacing(target, error=None) as draft:
                    draft.write_bytes(bytes(data)[:1000])
                    os.kill(os.getpid(), signal.SIGKILL)
            files.write_bytes = write
            if torch.save.__module__ != "yolo_attn.training.runs":
                torch.save = half
        return original(f, *args, **kwargs)
    trainer.strip_optimizer = strip
else:
    setattr(os, name, deadly(getattr(os, name)))
raise SystemExit(cli.main(sys.argv[3:]))
"""


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("step", "before"), [("fsync", 3), ("replace", 3), ("strip", 0), ("strip", 1)])
def test_a_kill_at_any_moment_leaves_whole_checkpoints_and_a_run_that_goes_on(
    tmp_path: Path, shapes: Path, step: str, before: int
) -> None:
    """In the draft of a checkpoint, before it takes its place, in the host's final strip of `last.pt` and `best.pt`."""
    (tmp_path / "own").mkdir()
    env = {"TMPDIR": str(tmp_path / "own")}  # the next command on this machine, of another worker, removes what is left
    run = run_python("-c", KILL, step, str(before), "train", *options(shapes, 2), cwd=tmp_path, env=env)
    assert run.code == -signal.SIGKILL, run.err[-2000:]
    assert list((tmp_path / "own").glob("*.folders"))
    folder = tmp_path / "runs" / "train" / "exp"
    weights = folder / "weights"
    for file in (weights / "last.pt", weights / "best.pt"):
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
    assert (folder / ".yolo_attn.lock").is_file() and len(list(weights.iterdir())) > 2  # it was in the middle
    resumed = run_python("-m", "yolo_attn", "train", "--resume", str(folder), cwd=tmp_path, env=env)
    resumed.ok()
    assert sorted(p.name for p in weights.iterdir()) == ["best.pt", "last.pt"]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    epochs = [line.split(",")[0] for line in (folder / "results.csv").read_text().splitlines()]
    assert epochs == ["epoch", "1", "2"]
    assert all(runs.state_of(weights / n).stripped for n in ("last.pt", "best.pt"))


@posix
@pytest.mark.slow
def test_below_a_folder_with_an_apostrophe(tmp_path: Path, shapes: Path) -> None:
    """The host takes `'` out of a checkpoint's path: train, SIGTERM with its hint, resume elsewhere, export."""
    here = tmp_path / "bob's"
    here.mkdir()
    command = [sys.executable, "-m", "yolo_attn", "train", *options(shapes, 200)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, cwd=here, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder = here / "runs" / "train" / "exp"
    last = folder / "weights" / "last.pt"
    deadline = time.monotonic() + 600
    while not last.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    busy = run_python("-m", "yolo_attn", "train", "--resume", str(folder), cwd=here).mistake()
    assert f"process {process.pid} on " in busy
    process.terminate()
    err = process.communicate(timeout=600)[1]
    assert process.returncode == 143, err
    assert "Traceback" not in err and "To resume: " in err and "--resume" in err
    copy = tmp_path / "alice's copy"
    shutil.copytree(folder, copy)
    before = last.read_bytes()
    code = f"""
import torch
from yolo_attn.training import runs
file = {str(copy / "weights" / "last.pt")!r}
content = torch.load(file, weights_only=False)
content["train_args"]["epochs"] = content["epoch"] + 2
torch.save(content, file)
"""
    run_python("-c", code).ok()
    resumed = run_python("-m", "yolo_attn", "train", "--resume", str(copy), "--export", cwd=here)
    out = resumed.ok()
    assert f"resumed in {copy}" in resumed.err and str(copy / "weights" / "best.onnx") in out
    assert (copy / "weights" / "best.onnx.json").is_file()
    assert last.read_bytes() == before
    assert "finished run" in run_python("-m", "yolo_attn", "train", "--resume", str(copy), cwd=here).mistake()


@pytest.mark.slow
def test_what_comes_after_the_epochs_is_done_by_resume(tmp_path: Path, shapes: Path, monkeypatch: Any) -> None:
    """A run killed in its picture or export: `--resume` does what is left, and nothing twice."""
    monkeypatch.chdir(tmp_path)
    argv = [a for a in options(shapes, 1) if a != "--noplots"]
    run_python("-m", "yolo_attn", "train", *argv, cwd=tmp_path).ok()
    folder = tmp_path / "runs" / "train" / "exp"
    picture = folder / "truth_and_prediction.jpg"
    picture.unlink()
    weights = (folder / "weights" / "best.pt").read_bytes()
    out = run_python("-m", "yolo_attn", "train", "--resume", str(folder), "--export", cwd=tmp_path).ok()
    assert picture.is_file() and "equal to PyTorch" in out
    assert (folder / "weights" / "best.pt").read_bytes() == weights
    assert cli.main(["train", "--resume", str(folder), "--export"]) == 1


@posix
@pytest.mark.slow
def test_kills_of_real_commands(tmp_path: Path) -> None:
    """A short run of `tools/kill.py`: nothing lost."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "kill.py"), "--cases", "insert", "data", "--rounds", "4", "--seed", "5"],
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "nothing was lost" in done.stdout, done.stdout + done.stderr
    assert re.search(r"insert +4", done.stdout)
