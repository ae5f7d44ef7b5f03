"""Where the runs of a study train: a Ray cluster of two workers that loses one, and what the hosts' trackers are told."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import classic_host
import pytest
from conftest import ROOT, run_python
from test_study import STAND_IN, journal, table

from yolo_attn.errors import UsageError, YoloAttnError
from yolo_attn.study import ray_runs, trackers
from yolo_attn.training.shapes import Recipe, make

ray_there = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray for this Python")

# As a driver of `test_study`, in a cluster of its own; what does a run stands in for a training, and one kills its worker.
RAY_DRIVER = """
import json, os, sys
from pathlib import Path
import ray
from yolo_attn.errors import YoloAttnError
from yolo_attn.study import jobs, jobs_where, plan, ray_runs, run
folder = Path(sys.argv[1])
the = plan.Plan(host="ultralytics", data="", data_sha256="", weights="", weights_sha256="", epochs=1, seeds=(0, 1),
                arguments={"imgsz": 64}, configs={c: {"sha256": "", "start": "", "source": ""} for c in ("a", "b", "lost")})
plan.settle(folder, the, [])
jobs.COMMAND = (str(folder.parent / "stand_in.py"),)
with jobs_where.places("ultralytics", ray=ray_runs.Ray(cpus=1)) as places:
    print("places", len(places))
    run.carry_out(folder, the, data="d", places=places)
"""
# Its journal is in the study's folder, which no run in a scratch folder of a node knows.
ON_A_NODE = STAND_IN.replace(
    'journal = folder.parent.parent.parent / "journal.txt"', 'journal = Path(__file__).with_name("journal.txt")'
).replace(
    'if name.startswith("full"):',
    """(folder / "results.csv").write_text("epoch\\n1\\n")
if name == "lost-0" or (name == "lost-1" and not journal.with_name("shot").exists()):
    import os
    if name == "lost-1":
        journal.with_name("shot").write_text("")
    time.sleep(0.7)
    os.kill(os.getppid(), 9)
    time.sleep(60)
if name.startswith("full"):""",
)


@ray_there
@pytest.mark.slow
def test_a_study_on_two_ray_workers_one_of_which_is_killed(tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(ON_A_NODE, encoding="utf-8")
    (tmp_path / "driver.py").write_text(RAY_DRIVER.replace("import ray\n", "import ray\nray.init(num_cpus=2)\n"), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "YOLO_ATTN_HOOK": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "study")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "places 2" in said, said
    rows = {r["run"]: r for r in table(tmp_path / "study")}
    assert {n: r["status"] for n, r in rows.items()} == {
        "a-0": "finished", "b-0": "finished", "lost-0": "failed", "a-1": "finished", "b-1": "finished", "lost-1": "finished",
    }, said  # fmt: skip
    assert "lost 3 times" in rows["lost-0"]["reason"] and rows["a-0"]["device"].startswith("ray ")
    assert said.count("starting it again") == 3
    lines = journal(tmp_path)
    assert lines.count("begins lost-0") == 3 and lines.count("begins lost-1") == 2 and lines.count("begins a-0") == 1
    folder = tmp_path / "study" / "runs" / "a-0"
    assert {"detections.npz", "log.txt", "results.csv", "run.yaml"} <= {p.name for p in folder.iterdir()}


# -- trackers, and the pause at the end of a rung: real trainings

# Stands in for the client of Weights & Biases, which needs an account: keeps what it is told, as JSON, one call a line.
WANDB = """
import json, os
__version__ = "0.0"
run = None
def _note(what, value):
    with open(os.environ["CALLS"], "a") as f: f.write(json.dumps([what, value], default=str) + "\\n")
class _Config(dict):
    def update(self, values, allow_val_change=False): _note("config", dict(values))
    def setdefaults(self, values): pass
class _Run:
    id = "1"
    def __init__(self): self.config = _Config()
    tags = property(lambda self: self.__dict__.get("t", ("mine",)))
    @tags.setter
    def tags(self, value): self.t = value; _note("tags", list(value))
    def log(self, values, **more): _note("log", sorted(values))
    def define_metric(self, *a, **k): pass
    def log_artifact(self, *a, **k): pass
def init(**more):
    global run
    run = _Run()
    _note("init", {"group": os.environ.get("WANDB_RUN_GROUP"), "name": os.environ.get("WANDB_NAME")})
    return run
def finish(**more): pass
def log(*a, **k): pass
class Artifact:
    def __init__(self, **more): pass
    def add_file(self, *a, **k): pass
class Image:
    def __init__(self, *a, **k): pass
"""
# Trains to the end of a rung and goes on to the next, as a search does.
RUNGS = """
import json, os, sys
os.environ.pop("PYTEST_CURRENT_TEST", None)  # with which ultralytics switches its trackers off
from pathlib import Path
from yolo_attn.study import candidates, jobs, plan, search
from yolo_attn.study.plan import Run
from yolo_attn.study import api
if sys.argv[2] == "ultralytics":
    from ultralytics import settings
    settings.update({"tensorboard": True, "mlflow": True, "wandb": True})
folder = Path("s").resolve()
made = candidates.from_names(["yolov5n.yaml", "yolov5n_eca.yaml"])
the, used = api.checked(made, data=sys.argv[1], epochs=2, seeds=(), weights="", imgsz=64, batch=8, host=sys.argv[2],
                        plugins=(), arguments={"workers": 0})
plan.settle(folder, the, made, file="search.yaml")
(folder / "runs").mkdir(exist_ok=True)
place = jobs.Here("cpu")
doer = search.Hosts(folder, the, used, made, [place])
for begin, until in ((0, 1), (1, 2)):
    done = doer.train(place, Run("yolov5n_eca", 3), begin, until)
    print(json.dumps([until, done.value, done.seconds, done.reason]))
"""


def scalars_and_tags(folder: Path) -> tuple[set[str], dict[str, str], set[str]]:
    """What TensorBoard reads in a folder: names of scalars, of texts their content, names of hyperparameters."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    scalars: set[str] = set()
    texts: dict[str, str] = {}
    hparams: set[str] = set()
    for file in folder.glob("events.out.tfevents*"):
        held = EventAccumulator(str(file), size_guidance={"tensors": 0})
        held.Reload()
        scalars |= set(held.Tags()["scalars"])
        for name in held.Tags()["tensors"]:
            if name.startswith("yolo_attn/"):
                texts[name.split("/")[1]] = held.Tensors(name)[0].tensor_proto.string_val[0].decode()
        data = held.summary_metadata.get("_hparams_/session_start_info")
        if data is not None:
            parsed = plugin_data_pb2.HParamsPluginData.FromString(data.plugin_data.content)
            hparams |= set(parsed.session_start_info.hparams)
    return scalars, texts, hparams


@pytest.mark.slow
@pytest.mark.parametrize("host", ["ultralytics", "yolov5"])
def test_a_rung_goes_on_from_the_one_before_and_trackers_are_told(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    env = {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "CALLS": str(tmp_path / "calls"), "MLFLOW_ALLOW_FILE_STORE": "true"}
    if host == "yolov5":
        env.update(classic_host.get("package").env)
    else:
        (tmp_path / "client").mkdir()
        (tmp_path / "settings").mkdir()
        env["YOLO_CONFIG_DIR"] = str(tmp_path / "settings")  # the trackers that it switches on are no later training's
        (tmp_path / "client" / "wandb.py").write_text(WANDB, encoding="utf-8")
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "client"), str(ROOT)])
    data = make(tmp_path / "set", Recipe(train=16, val=8, size=64))
    done = run_python("-c", RUNGS, str(data), host, cwd=tmp_path, env=env)
    first, second = (json.loads(line) for line in done.ok().strip().splitlines()[-2:])
    folder = tmp_path / "s" / "runs" / "yolov5n_eca-3"
    log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    assert first[1] is not None and second[1] is not None, f"{first} {second}\n{log[-3000:]}"
    rows = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3 and not list(folder.glob("results.csv*2")), rows
    numbers = [dict(zip([h.strip() for h in rows[0].split(",")], r.split(","))) for r in rows[1:]]
    rate = "lr/pg0" if host == "ultralytics" else "x/lr0"
    assert float(numbers[0][rate]) != float(numbers[1][rate]), "the schedule of two epochs, not of one twice"
    assert (folder / "weights" / "rung-1.pt").is_file()
    scalars, texts, hparams = scalars_and_tags(folder)
    assert texts == {"study": "s", "config": "yolov5n_eca", "seed": "3"}
    assert {"study", "config", "seed"} <= hparams and any("mAP" in s for s in scalars)
    if host == "yolov5":
        return
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer versions of MLflow want to be asked for
    mlflow.set_tracking_uri(env["MLFLOW_TRACKING_URI"])
    experiment = mlflow.get_experiment_by_name("s")
    assert experiment is not None, log[-3000:]
    found = mlflow.search_runs([experiment.experiment_id], output_format="list")
    assert len(found) == 2 and {r.info.run_name for r in found} == {"yolov5n_eca-3"}
    for r in found:
        assert {k: r.data.tags.get(k) for k in ("study", "config", "seed")} == {"study": "s", "config": "yolov5n_eca", "seed": "3"}
        assert r.info.status == "FINISHED" and any("mAP50-95" in m for m in r.data.metrics)
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text(encoding="utf-8").splitlines()]
    assert ["init", {"group": "s", "name": "yolov5n_eca-3"}] in calls
    assert ["tags", ["mine", "study:s", "config:yolov5n_eca", "seed:3"]] in calls
    assert ["config", {"yolo_attn/study": "s", "yolo_attn/config": "yolov5n_eca", "yolo_attn/seed": 3}] in calls


def test_a_tracker_that_refuses_is_no_trouble_of_the_training(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise RuntimeError("no network\nand more")

    monkeypatch.setenv(trackers.VARIABLE, "")  # put back afterwards
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN", "WANDB_RUN_GROUP", "WANDB_NAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    trackers.name({"study": "s", "config": "c" * 100, "seed": 0})

    class Client:
        tags = None
        config = None

    with caplog.at_level("INFO", "yolo_attn"):
        trackers.tag({"MLflow": refuse, "TensorBoard": lambda: None})
    assert [r.getMessage() for r in caplog.records] == ["MLflow: this run is not tagged: no network"]
    trackers.tag({"Weights & Biases": lambda: Client})  # whose config is none
    assert Client.tags is None
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "s"


def test_the_address_of_a_cluster_may_be_left_out() -> None:
    from yolo_attn.commands import _study, parser_of

    def asked(*argv: str) -> tuple[object, list[str]]:
        args = parser_of("compare").parse_args(["--cfgs", "a.yaml", "b.yaml", *argv])
        return _study.cluster(args, args.more), args.more

    assert asked() == (None, []) and asked("--ray") == (ray_runs.Ray(), [])
    assert asked("--ray", "lr0=0.1") == (ray_runs.Ray(), ["lr0=0.1"]), "a key=value is no address"
    assert asked("--ray", "auto", "--ray-gpus", "0.5") == (ray_runs.Ray("auto", 0.5), [])
    with pytest.raises(UsageError, match="need --ray"):
        asked("--ray-cpus", "2")


def test_what_a_cluster_is_asked_for_is_checked() -> None:
    with pytest.raises(UsageError, match="from 0 to 1"), ray_runs.connected(ray_runs.Ray(gpus=2)):
        pass
    with pytest.raises(UsageError, match="takes more than that"), ray_runs.connected(ray_runs.Ray(cpus=0)):
        pass
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        for address in (f"127.0.0.1:{nobody.getsockname()[1]}", f"ray://127.0.0.1:{nobody.getsockname()[1]}"):
            with pytest.raises(OSError, match="refused"):
                ray_runs._reach(address)
    ray_runs._reach("auto")
    for name in ("../../etc/passwd", "/etc/passwd", "weights/../../x"):
        with pytest.raises(YoloAttnError, match="not in the run's folder"):
            ray_runs._inside(name)
