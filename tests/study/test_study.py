"""Studies: the plan, the folder, what a kill leaves, who shares it, and real comparisons on the embedded data."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import classic_host
import pytest
import torch
from conftest import ROOT, run_python

import yolo_attn
from yolo_attn.errors import ConfigError, FileError, UsageError
from yolo_attn.evaluation import figures as evaluation
from yolo_attn.study import candidates, jobs, jobs_where, plan, record, verdict, worker
from yolo_attn.system import locks, processes
from yolo_attn.training.shapes import Recipe, make

# Stands in for a training: notes that it began, takes a moment, leaves what a worker leaves, and ends as a worker does.
STAND_IN = """
import json, sys, time, random
from pathlib import Path
import numpy as np
from yolo_attn.study import worker
worker.begin(sys.argv[1:])
task = json.loads(Path(sys.argv[1]).read_text())
folder = Path(task["folder"])
name = folder.name
journal = folder.parent.parent.parent / "journal.txt"
def note(word):
    with journal.open("a") as f: f.write(f"{word} {name}\\n")
note("begins")
if [p.name for p in folder.iterdir() if p.name not in ("task.json", "log.txt")]:
    note("half")
(folder / "half").write_text("written")
if name.startswith("long"):
    import os
    note(f"pid {os.getpid()} of")
    time.sleep(3600)
time.sleep(random.uniform(0.02, 0.2))
if name.startswith("broken"):
    (folder / worker.TROUBLE).write_text(json.dumps({"reason": "RuntimeError: of its own"}))
    raise SystemExit(1)
if name.startswith("full"):
    raise SystemExit(worker.FULL)
if name.startswith("shot"):
    import os
    os.kill(os.getpid(), 9)
truth = [np.array([[0, 0, 9, 9, 0.0]])] * 12
found = [np.array([[0, 0, 9, 9, 0.5, 0.0]])] * 12
np.savez(folder / worker.DETECTIONS, **worker._packed(truth, found))
seed = int(name.rpartition("-")[2])
value = {"a": 0.5, "b": 0.2}.get(name[0], 0.4) + seed * 0.01 + len(name) * seed * 0.001
result = {"figures": {"mAP50-95": value, "classes": {}}, "split": "val", "images": 12, "parameters": 1, "gflops": 1.0,
          "seconds": 1.0, "versions": {}}
(folder / worker.RESULT).write_text(json.dumps(result))
note("ends")
"""
# Carries a plan out with it; the arguments are the folder, the configs, and how many seeds and jobs.
DRIVER = """
import sys
from pathlib import Path
from yolo_attn.errors import YoloAttnError
from yolo_attn.study import jobs as working, plan, run
folder, configs, seeds, jobs = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4])
the = plan.Plan(host="ultralytics", data="d", data_sha256="", weights="", weights_sha256="", epochs=1,
                seeds=tuple(range(seeds)), arguments={"imgsz": 64},
                configs={c: {"sha256": "", "start": "", "source": ""} for c in configs})
plan.settle(folder, the, [])
working.COMMAND = (str(folder.parent / "stand_in.py"),)
try:
    run.carry_out(folder, the, data="d", jobs=jobs)
except YoloAttnError as exc:
    raise SystemExit(f"one line: {exc}")
"""


def the_plan(configs: str, seeds: int) -> plan.Plan:
    return plan.Plan(
        host="ultralytics", data="d", data_sha256="", weights="", weights_sha256="", epochs=1, seeds=tuple(range(seeds)),
        arguments={"imgsz": 64}, configs={c: {"sha256": "", "start": "", "source": ""} for c in configs.split(",")},
    )  # fmt: skip


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "YOLO_ATTN_HOOK": "0", "OMP_NUM_THREADS": "1"}

    def start(configs: str, seeds: int = 2, jobs: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "study"), configs, str(seeds), str(jobs)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def journal(tmp_path: Path) -> list[str]:
    file = tmp_path / "journal.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    return said


# -- the folder


def test_a_study_is_a_folder(drive: Any, tmp_path: Path) -> None:
    said = ended(drive("a,b", 2))
    study = tmp_path / "study"
    assert sorted(p.name for p in (study / "runs").iterdir()) == ["a-0", "a-1", "b-0", "b-1"]
    assert [r["run"] for r in table(study)] == ["a-0", "b-0", "a-1", "b-1"] and table(study)[0]["status"] == "finished"
    assert "4 runs" in said or "of 4" in said
    rows = verdict.rows(study, the_plan("a,b", 2))
    assert rows[0]["finished"] == 2 and rows[1]["difference"] == pytest.approx(-0.3)
    assert not list(study.rglob("*.lock")) and not list(study.rglob(".yolo_attn-*")), "nothing is left lying about"
    before = journal(tmp_path)
    for left in (".yolo_attn-a-0.lock", ".yolo_attn-a-0-worker.lock"):  # of a process that was killed after its last step
        (study / "runs" / left).write_text("")
    ended(drive("a,b", 2))
    assert journal(tmp_path) == before, "nothing finished is repeated"
    assert not list(study.rglob("*.lock"))


@pytest.mark.slow
def test_killed_twenty_times(drive: Any, tmp_path: Path) -> None:
    """At random moments: nothing finished is repeated or lost, nothing half-written is read."""
    study, rng = tmp_path / "study", random.Random(0)
    the, finished = the_plan("a,b,c,d,e", 16), set()
    begun: dict[str, int] = {}
    for _ in range(20):
        known, until = len(journal(tmp_path)), time.monotonic() + 120
        process = drive("a,b,c,d,e", 16, jobs=2)
        while len(journal(tmp_path)) == known and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)  # until a run begins: a moment by the clock would depend on the machine
        time.sleep(rng.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        ended(process)
        if (study / plan.FILE).exists():
            now = {r.name for r, d in record.read_all(study, the).items() if d["status"] == "finished"}
            assert now >= finished, "what had finished is lost"
            finished = now
            for name in now:
                begun.setdefault(name, journal(tmp_path).count(f"begins {name}"))
    assert 0 < len(begun) < 80, "the kills came too early or too late to show anything"
    assert ended(drive("a,b,c,d,e", 16, jobs=2)).count("Traceback") == 0
    lines = journal(tmp_path)
    assert len(table(study)) == 80 and {r["status"] for r in table(study)} == {"finished"}
    assert not [w for w in lines if w.startswith("half")], "a run began in a folder that was not empty"
    ends = [w for w in lines if w.startswith("ends")]
    assert len(set(ends)) == 80
    assert {n: lines.count(f"begins {n}") for n in begun} == begun, "what had finished is begun again"
    assert not [p for p in study.iterdir() if p.name.startswith(".yolo_attn-")], "drafts of killed processes are removed"


def test_a_killed_launcher_takes_its_runs_along(drive: Any, tmp_path: Path) -> None:
    """An orphan would go on training, for an hour."""
    process = drive("long,a", 1)
    while not (pids := [w.split()[1] for w in journal(tmp_path) if w.startswith("pid")]):
        assert process.poll() is None, ended(process)
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    ended(process)
    until = time.monotonic() + 120
    while running(int(pids[0])) and time.monotonic() < until:
        time.sleep(0.02)
    orphan = running(int(pids[0]))
    if orphan:
        os.kill(int(pids[0]), signal.SIGKILL)
    assert not orphan, "an orphan goes on training"
    assert [w.split()[0] for w in journal(tmp_path)] == ["begins", "pid"], "another run begins, or this one ends as if it were done"


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # one that has ended stays in the table until its new parent looks
    return not stat.exists() or stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def test_a_run_waits_for_the_worker_of_a_killed_launcher(drive: Any, tmp_path: Path) -> None:
    """It may be writing still; nobody clears its folder, or trains in it, before it has ended."""
    plan.settle(tmp_path / "study", the_plan("a,b", 1), [])
    folder = tmp_path / "study" / "runs" / "a-0"
    folder.mkdir(parents=True)
    (folder / "half").write_text("of the killed one")
    locks.take(worker.lock_of(folder))
    try:
        process = drive("a,b", 1)
        while "ends b-0" not in journal(tmp_path) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(1.5)  # it has looked again by now, or on a busy machine has not, and does below
        assert journal(tmp_path) == ["begins b-0", "ends b-0"] and (folder / "half").read_text() == "of the killed one"
    finally:
        locks.release(worker.lock_of(folder))
    ended(process)
    assert process.returncode == 0 and journal(tmp_path)[2:] == ["begins a-0", "ends a-0"]


def test_a_worker_that_starts_after_its_launchers_end_writes_nothing(tmp_path: Path) -> None:
    """The folder may be another launcher's by then, and the task in it as well."""
    folder = tmp_path / "runs" / "a-0"
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps({"folder": str(folder), "argv": ["--epochs", "many"], "data": "d"}))
    gone = subprocess.run(
        [sys.executable, "-c", "from yolo_attn.system import processes; print(processes.owner())"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.strip()  # fmt: skip
    for launcher, there in ((gone, ["task.json"]), (processes.owner(), ["task.json", worker.TROUBLE])):
        command = [sys.executable, "-m", worker.__name__, str(folder / "task.json"), launcher]
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as process:  # whose pipe stays open
            assert process.wait(timeout=120) == worker.FAILED
        assert sorted(p.name for p in folder.iterdir()) == there and len(list(folder.parent.iterdir())) == 1


def test_two_processes_share_a_study(drive: Any, tmp_path: Path) -> None:
    both = [drive("a,b", 8), drive("a,b", 8)]
    for process in both:
        said = ended(process)
        assert process.returncode == 0, said
    lines = journal(tmp_path)
    assert sorted(lines) == sorted(f"{w} {c}-{s}" for w in ("begins", "ends") for c in "ab" for s in range(8))
    assert len(table(tmp_path / "study")) == 16


def test_a_run_that_fails_does_not_stop_the_rest(drive: Any, tmp_path: Path) -> None:
    said = ended(drive("a,broken,shot,b", 1))
    rows = {r["config"]: r for r in table(tmp_path / "study")}
    assert rows["broken"]["status"] == "failed" and rows["broken"]["reason"] == "RuntimeError: of its own"
    assert "SIGKILL" in rows["shot"]["reason"] and rows["b"]["status"] == "finished"
    assert "broken-0 failed: RuntimeError: of its own" in said
    found = verdict.rows(tmp_path / "study", the_plan("a,broken,shot,b", 1))
    assert found[1]["failed"] == ["broken-0: RuntimeError: of its own"] and found[1]["verdict"] == "cannot tell"
    ended(drive("a,broken,shot,b", 1))
    count = journal(tmp_path).count
    assert count("begins broken-0") == 2 and count("begins a-0") == 1, "the same command tries what failed, and that alone"


def test_a_full_disk_is_one_line_and_loses_nothing(drive: Any, tmp_path: Path) -> None:
    process = drive("a,full,b", 1)
    said = ended(process).strip().splitlines()
    assert process.returncode == 1 and said[-1].startswith("one line:") and "disk is full" in said[-1]
    assert "Traceback" not in "".join(said)
    assert [r["run"] for r in table(tmp_path / "study")] == ["a-0"], "what had finished is kept, and no more is begun"


def test_the_worker_knows_a_full_disk() -> None:
    import errno

    exc = yolo_attn.YoloAttnError("the disk says")
    exc.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert worker._says_full(exc) and not worker._says_full(ValueError("no"))


def test_another_plan_is_refused_with_the_difference(tmp_path: Path) -> None:
    first = candidates.from_names(["yolov5n.yaml", "yolov5n_se.yaml"])
    common: dict[str, Any] = {
        "host": "ultralytics", "data": "a.yaml", "data_sha256": "1", "weights": "", "weights_sha256": "",
        "arguments": {"imgsz": 64},
    }  # fmt: skip
    plan.settle(tmp_path / "s", plan.of(first, epochs=2, seeds=(0, 1), **common), first)
    plan.settle(tmp_path / "s", plan.of(first, epochs=2, seeds=(0, 1), **common), first)
    second = candidates.from_names(["yolov5n.yaml", "yolov5n_eca.yaml"])
    other = plan.of(second, epochs=3, seeds=(0, 1), **{**common, "data_sha256": "2", "arguments": {"imgsz": 96}})
    with pytest.raises(FileError) as caught:
        plan.settle(tmp_path / "s", other, second)
    said = str(caught.value)
    for part in (
        "epochs is 2 there and 3 here", "config yolov5n_eca is not in it", "config yolov5n_se is in it",
        "imgsz is 64 there and 96 here", "the files of data have changed",
    ):  # fmt: skip
        assert part in said
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(FileError, match="holds files and no study.yaml"):
        plan.settle(tmp_path / "mine", other, second)


def test_a_record_that_somebody_changed(tmp_path: Path) -> None:
    the = the_plan("a", 1)
    folder = tmp_path / "runs" / "a-0"
    folder.mkdir(parents=True)
    assert record.read(tmp_path, the.runs[0]) is None, "a folder without a record is a run that has not happened"
    (folder / "run.yaml").write_text("status: finished\nconfig: b\nseed: 0\n", encoding="utf-8")
    with pytest.raises(FileError, match="no record of a-0"):
        record.read(tmp_path, the.runs[0])
    whole = "status: finished\nconfig: a\nseed: 0\nseconds: 60.5\nfigures: {mAP50-95: 1.0, AP_small: null, classes: {b: 0.5}}\n"
    (folder / "run.yaml").write_text(whole, encoding="utf-8")
    assert record.read(tmp_path, the.runs[0]) is not None
    for part, other, named in (
        ("60.5", "abc", "seconds: abc"), ("1.0", "80.1", "mAP50-95: 80.1"), ("1.0", "true", "mAP50-95: True"),
        ("{b: 0.5}", "[1]", r"classes: \[1\]"), ("0.5", "x", "b: x"), ("null", "-1", "AP_small: -1"),
    ):  # fmt: skip
        (folder / "run.yaml").write_text(whole.replace(part, other), encoding="utf-8")
        with pytest.raises(FileError, match=f"run.yaml: {named} is no figure of a run"):
            record.read(tmp_path, the.runs[0])


# -- configs


def test_configs_that_do_not_exist_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        candidates.from_names(["yolov5n.yaml", "nothing.yaml", "yolov5n_se.yaml", "yolov5n_sea.yaml"])
    assert "nothing.yaml" in str(caught.value) and "yolov5n_sea.yaml" in str(caught.value)


def test_a_missing_config_is_named_before_anything_trains(cli: Any, tmp_path: Path) -> None:
    result = cli("compare", "--cfgs", "yolov5n.yaml", "nothing.yaml", "-o", str(tmp_path / "s"))
    assert result.code == 1 and "nothing.yaml" in result.err and not (tmp_path / "s").exists()
    assert cli("compare", "--cfgs", "yolov5n.yaml").code == 2
    assert cli("compare", "--base", "yolov5n.yaml").code == 2
    assert cli("compare", "--cfgs", "yolov5n.yaml", "yolov5n_se.yaml", "--seeds", "0").code == 2


def test_names_and_starts() -> None:
    found = candidates.from_names(["yolov5n.yaml", "yolov5n_se.yaml:paper", "yolov5n.yaml", "yolov5n_se.yaml"])
    assert [c.name for c in found] == ["yolov5n", "yolov5n_se_paper", "yolov5n_2", "yolov5n_se"]
    assert "start: paper" in found[1].text and found[0].text == found[2].text
    both = candidates.from_names(["yolov5n.yaml", "yolov5n_se.yaml"], ["identity", "paper"])
    assert [c.start for c in both] == ["", "identity", "paper"]
    with pytest.raises(UsageError, match="identity"):
        candidates.from_names(["yolov5n.yaml", "yolov5n_se.yaml"], ["same"])


def test_the_grid() -> None:
    found = candidates.from_grid("yolov5n.yaml", ["SEAttention", "ECA"], ["backbone", "backbone+neck"], ["identity", "paper"])
    assert len(found) == 1 + 2 * 2 * 2 and found[0].name == "yolov5n"
    assert found[1].name == "yolov5n_SEAttention_backbone_identity" and "SEAttention" in found[1].text
    assert len({c.sha256 for c in found}) == 9
    with pytest.raises(ConfigError, match="Attentoin"):
        candidates.from_grid("yolov5n.yaml", ["Attentoin", "ECA"])


# -- figures


def test_figures_are_those_of_pycocotools() -> None:
    from test_study_statistics import by_pycocotools, scene

    for seed in range(3):
        truth, found = scene(seed=seed)
        got = evaluation.figures(truth, found, ["a", "b", "c"])
        stats = by_pycocotools(truth, found, 3)
        names = ("mAP50-95", "mAP50", None, "AP_small", "AP_medium", "AP_large")
        for name, value in zip(names, stats):
            if name:
                assert got[name] is None if value == -1 else got[name] == pytest.approx(value, abs=1e-6), name


def test_a_class_that_is_missing_from_val() -> None:
    from test_study_statistics import scene

    truth, found = scene(classes=2)
    two, three = evaluation.figures(truth, found, ["a", "b"]), evaluation.figures(truth, found, ["a", "b", "gone"])
    assert three["classes"]["gone"] is None and three["mAP50-95"] == pytest.approx(two["mAP50-95"])
    nothing = evaluation.figures(truth, [t[:0, [0, 1, 2, 3, 4, 4]] for t in truth], ["a", "b", "gone"])
    assert nothing["mAP50-95"] == 0 and nothing["classes"] == {"a": 0.0, "b": 0.0, "gone": None}


def test_the_test_split_is_measured_where_there_is_one(tmp_path: Path) -> None:
    data = make(tmp_path / "set", Recipe(train=2, val=3, size=64))
    assert evaluation.split_of(str(data)).name == "val"
    data.write_text(data.read_text(encoding="utf-8") + "test: images/train\n", encoding="utf-8")
    split = evaluation.split_of(str(data))
    assert split.name == "test" and len(split.files) == 2 and split.names == ["circle", "square", "triangle"]
    image, objects = next(iter(split.images()))
    assert image.shape == (64, 64, 3) and objects.shape[1] == 5 and objects[:, :4].max() <= 64


# -- seeds


def test_the_seed_reaches_the_loaders_workers(tmp_path: Path) -> None:
    """Also on an ultralytics whose loader has the same generator for every seed; the same seed draws the same."""
    data = make(tmp_path / "set", Recipe(train=16, val=2, size=64))
    code = """
import sys, torch, ultralytics.data.build as build
from yolo_attn.study.seeding import seed_ultralytics
from ultralytics.models.yolo.detect import DetectionTrainer
torch.initial_seed = lambda: 1  # up to 8.4.120 the seed was no part of the loader's
seed = int(sys.argv[2])
seed_ultralytics(seed)
drawn = []
def stop(trainer):
    for batch in trainer.train_loader:
        drawn.append(float(batch["img"].float().sum())); drawn.append(batch["im_file"][0][-8:])
    print("DRAWN", drawn)
    raise SystemExit
from ultralytics.utils.callbacks.base import default_callbacks
default_callbacks["on_train_epoch_start"].append(stop)
DetectionTrainer(overrides=dict(model="yolov5n.yaml", data=sys.argv[1], imgsz=64, batch=8, workers=1, epochs=1, seed=seed,
    device="cpu", plots=False, project=sys.argv[3], mosaic=0.5)).train()
"""

    def drawn(seed: int) -> str:
        found = run_python("-c", code, str(data), str(seed), str(tmp_path / "r"), cwd=tmp_path)
        return next(line for line in found.out.splitlines() if line.startswith("DRAWN"))

    first = drawn(0)
    assert drawn(0) == first and drawn(1) != first


def test_a_classic_host_without_seeds_is_refused(tmp_path: Path) -> None:
    from yolo_attn.errors import HostError
    from yolo_attn.study.seeding import check_classic

    (tmp_path / "utils").mkdir()
    (tmp_path / "train.py").write_text("parser.add_argument('--epochs')", encoding="utf-8")
    with pytest.raises(HostError, match="--seed"):
        check_classic(tmp_path, 0)
    (tmp_path / "train.py").write_text("parser.add_argument('--seed')", encoding="utf-8")
    loader = tmp_path / "utils" / "dataloaders.py"
    loader.write_text("def create_dataloader():\n    generator.manual_seed(0)", encoding="utf-8")
    check_classic(tmp_path, 0)
    with pytest.raises(UsageError, match="--workers 0"):
        check_classic(tmp_path, 2)
    loader.write_text("def create_dataloader():\n    generator.manual_seed(6148914691236517205 + seed + RANK)", encoding="utf-8")
    check_classic(tmp_path, 2)


# -- real trainings

TINY = ("--epochs", "1", "--imgsz", "64", "--batch", "8", "--workers", "0", "--device", "cpu")


@pytest.mark.slow
def test_compare_trains_and_tells(tmp_path: Path) -> None:
    """Two names of one config from weights of other classes: equal to the last digit of every loss."""
    data = make(tmp_path / "set", Recipe(train=16, val=12, size=64))
    run_python("-c", "from ultralytics import YOLO; YOLO('yolov5n.yaml').save('w.pt')", cwd=tmp_path).ok()
    command = ["-m", "yolo_attn", "compare", "--cfgs", "yolov5n.yaml", "yolov5n.yaml", "--data", str(data), *TINY]
    command += ["--seeds", "2", "-o", "s", "--save-json", "rows.json", "--weights", "w.pt"]
    result = run_python(*command, cwd=tmp_path)
    result.ok()
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [r["config"] for r in rows] == ["yolov5n", "yolov5n_2"] and rows[1]["difference"] == 0
    assert rows[1]["verdict"] in ("not distinguishable", "cannot tell") and rows[0]["parameters"] > 2_000_000
    losses = {
        name: (tmp_path / "s" / "runs" / name / "results.csv").read_text(encoding="utf-8").splitlines()[-1].split(",")[2:]
        for name in ("yolov5n-0", "yolov5n_2-0", "yolov5n-1")
    }
    assert losses["yolov5n-0"] == losses["yolov5n_2-0"], "the same seed is not the same training"
    assert losses["yolov5n-0"] != losses["yolov5n-1"], "the seed does not reach the training"
    found = table(tmp_path / "s")
    assert len(found) == 4 and all(r["data_sha256"] and r["config_sha256"] and r["torch"] for r in found)
    again = run_python(*command, cwd=tmp_path)
    assert again.ok() and "4 of 4 runs are finished" in again.err
    other = run_python(*command, "lr0=0.5", cwd=tmp_path)
    assert other.code == 1 and "lr0 is None there and 0.5 here" in other.err


@pytest.mark.slow
def test_compare_on_classic_yolov5(tmp_path: Path) -> None:
    host = classic_host.get("package")
    data = make(tmp_path / "set", Recipe(train=16, val=12, size=64))
    command = ["-m", "yolo_attn", "compare", "--cfgs", "yolov5n.yaml", "yolov5n_se.yaml", "--data", str(data), *TINY]
    result = run_python(*command, "--host", "yolov5", "--seeds", "1", "-o", "s", cwd=tmp_path, env=host.env)
    assert "cannot tell" in result.ok(), result.err
    assert [r["status"] for r in table(tmp_path / "s")] == ["finished"] * 2
    report = run_python("-m", "yolo_attn", "report", "s/runs", "--json", "--device", "cpu", cwd=tmp_path, env=host.env)
    rows = {r["config"]: r for r in json.loads(report.ok())["rows"]}
    studied = json.loads((tmp_path / "s" / "latency.json").read_text(encoding="utf-8"))["configs"]
    assert set(rows) == {"yolov5n", "yolov5n_se"} == set(studied) and not any(v["reason"] for v in studied.values())
    for row, ran in zip(rows.values(), table(tmp_path / "s")):
        assert row["parameters"] == int(ran["parameters"]) and row["mAP50-95"] == pytest.approx(float(ran["mAP50-95"]))
        assert row["latency_ratio"] > 0 and row["images"] == 12


def test_each_device_gets_a_run() -> None:
    assert [p.name for p in jobs.places("0,1,2,3")] == ["0", "1", "2", "3"]
    assert [p.name for p in jobs.places("0,1", 4)] == ["0", "1", "0", "1"]
    assert [p.name for p in jobs.places("0+1,2+3")] == ["0,1", "2,3"], "one run on two GPUs, where it is asked for"
    assert [p.name for p in jobs.places("cpu", 2)] == ["cpu", "cpu"] and [p.name for p in jobs.places()] == ["default"]
    with pytest.raises(UsageError, match=r"without a run.*0\+1"):
        jobs.places("0,1", 1)
    with pytest.raises(UsageError, match="at least 1"):
        jobs.places("", 0)


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="this machine has it")
def test_a_device_that_is_not_there_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device 7: this machine has"), jobs_where.places("ultralytics", "cpu,7"):
        pass
    with jobs_where.places("ultralytics", "cpu", 2) as found:
        assert len(found) == 2


def test_one_training_on_several_gpus_needs_a_host_that_seeds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers are the host's own processes: a version that gives them one seed for all would compare nothing."""
    from ultralytics.data import build

    from yolo_attn.study.seeding import check_together

    (tmp_path / "build.py").write_text("generator.manual_seed(6148914691236517205 + RANK)", encoding="utf-8")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    with pytest.raises(UsageError, match="0,1 and not 0\\+1"):
        check_together("ultralytics")
    (tmp_path / "build.py").write_text("generator.manual_seed((6148914691236517205 + RANK + seed) % 2)", encoding="utf-8")
    check_together("ultralytics")
