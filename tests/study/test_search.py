"""The search: its plan and its records, what it finds by simulation, kills, several processes, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("optuna")

from yolo_attn import cli as yolo_attn_cli  # after the line above
from yolo_attn.errors import ConfigError, FileError, UsageError, YoloAttnError
from yolo_attn.study import jobs, search, search_course, search_ledger, search_plan, search_run
from yolo_attn.study.plan import Run


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_search", ROOT / "benchmarks" / "search.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# -- the plan


def test_a_budget_is_a_time_or_a_number_of_trainings() -> None:
    assert search_plan.read_budget("6h").of(3600) == 6 and search_plan.read_budget("90m").of(60) == 90
    assert search_plan.read_budget("1.5d").of(86400) == 1.5 and search_plan.read_budget("40runs").of(7) == 40
    for wrong in ("6", "six hours", "0h", "-3h", "6x", ""):
        with pytest.raises(UsageError, match="6h"):
            search_plan.read_budget(wrong)


@pytest.mark.parametrize("budget", [16, 20, 30, 45, 60, 90, 150])
@pytest.mark.parametrize("candidates", [1, 2, 5, 8, 24, 48, 200])
def test_a_design_keeps_to_its_budget(candidates: int, budget: int) -> None:
    found = search_plan.design(candidates, budget, 30)
    if found is None:
        assert budget < search_plan.least(candidates, 30)
        return
    assert found.candidates <= candidates and found.cost <= search_plan.SHARE * budget + 1e-9
    sizes = [found.candidates, *(r.keep for r in found.rungs)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] >= min(candidates, 1)
    assert found.rungs[-1].until == 30 and found.rungs[-1].seed >= 1, "who is confirmed was seen with two seeds at least"
    cost, behind = 0.0, 0
    for n, r in zip(sizes, found.rungs):
        assert r.begin == (behind if r.seed == 0 else 0)
        cost += (n + 1) * (r.until - r.begin) / 30
        behind = r.until
    assert cost == pytest.approx(found.cost)
    survivors, seeds = search_plan.confirmation(budget - found.cost, found.rungs[-1].keep)
    assert seeds >= search_plan.FEWEST and cost + (survivors + 1) * seeds <= budget + 1e-9


def test_more_budget_tries_no_fewer_candidates() -> None:
    tried = [d.candidates for b in range(16, 120, 4) if (d := search_plan.design(60, b, 30)) is not None]
    assert tried == sorted(tried) and tried[-1] == 60
    assert search_plan.design(1, 14.1, 1) is not None, "one epoch has no early rung"


def test_what_a_confirmation_can_tell() -> None:
    from scipy import stats

    for seeds, survivors in ((5, 1), (13, 2)):
        shift = search_plan.detectable(seeds, survivors) * seeds**0.5
        critical = stats.t.isf(0.05 / survivors / 2, seeds - 1)
        assert stats.nct.sf(critical, seeds - 1, shift) == pytest.approx(0.8, abs=2e-3)


def test_the_spread_of_seeds_and_of_configs() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    blocks, effects = rng.normal(0, 5, 40), np.array([0.0, 1.0, 2.0, 3.0])
    found = search_plan.spread(effects[:, None] + blocks + rng.normal(0, 0.1, (4, 40)))
    assert found is not None and found.seeds == pytest.approx(0.1, rel=0.2)
    assert found.configs == pytest.approx(effects.std(ddof=1), rel=0.05) and found.p < 1e-6
    nothing = [search_plan.spread(rng.normal(0, 1, (5, 3))) for _ in range(400)]
    assert 0.02 < sum(f is not None and f.p < 0.05 for f in nothing) / 400 < 0.09
    assert search_plan.spread([[1.0], [2.0]]) is None


# -- what it finds, through the whole search with a simulated training


def test_nothing_is_found_where_nothing_is_and_what_is_planted_is() -> None:
    """Reduced from `benchmarks/search.py`, which has the numbers."""
    b = benchmark()
    _, none, cost = b.many(40, 24, 60, 0.0)
    assert none >= 0.95 and cost <= 60
    found, _, cost = b.many(20, 24, 60, 2 * b.PAIRED)
    assert found >= 0.8
    assert cost <= b.grid(24, 2 * b.PAIRED, grids=100) * 25 / 3
    found, _, _ = b.many(5, 24, 60, -2 * b.PAIRED)
    assert found == 0, "a candidate that is worse is never the answer"


def simulated(tmp_path: Path, candidates: int, budget: str, doer: Any, storage: Any = None, places: int = 1) -> dict[str, Any]:
    import optuna

    b = benchmark()
    ledger = search_ledger.Ledger(tmp_path, optuna.storages.InMemoryStorage() if storage is None else storage)
    course = search_course.Course(b.space(candidates), search_plan.read_budget(budget), b.EPOCHS, ledger)
    return search_run.carry_out(tmp_path, course, doer, [jobs.Here() for _ in range(places)])


def test_what_the_budget_has_no_room_for_is_chosen_by_optuna(tmp_path: Path) -> None:
    b = benchmark()
    doer = b.Simulated(0, {}, b.half)
    found = simulated(tmp_path, 120, "40runs", doer)
    assert found["candidates"] == 120 and 20 < found["tried"] < 80
    first = {r.config for r in doer.noise if r.seed == 0} - {"base"}
    assert len(first) == found["tried"], "each is tried once"
    assert found["spent"] == pytest.approx(doer.cost) and doer.cost <= 40


def test_several_places_do_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_run, "POLL", 0.01)
    b = benchmark()

    class Noted(b.Simulated):  # type: ignore[name-defined, misc]
        steps: Sequence[Any] = ()

        def train(self, place: Any, run: Run, begin: int, until: int) -> Any:
            self.steps = [*self.steps, (run, begin, until)]
            time.sleep(0.002)
            return super().train(place, run, begin, until)

    doer = Noted(1, {"m1_p1": 9.0}, b.half)
    found = simulated(tmp_path, 12, "40runs", doer, places=4)
    assert len(doer.steps) == len(set(doer.steps)) and found["answer"] == "m1_p1"
    assert found["choice"] == {"module": "m1", "where": "p1", "start": "identity"}
    begun = {(r, b_) for r, b_, _ in doer.steps}
    assert all((r, b_) in begun for r, b_, _ in doer.steps if b_ == 0)
    assert not [p for p in (tmp_path / "runs").iterdir() if p.name.endswith(".lock")]


class Fails:
    """Trains as it is told: a value for each config, or a reason for its failure."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values, self.tries = values, 0

    def train(self, place: Any, run: Run, begin: int, until: int) -> search_run.Trained:
        self.tries += run.config == "m0_p1"
        value = self.values.get(run.config, 0.2)
        if isinstance(value, str):
            return search_run.Trained(None, 0.0, value)
        return search_run.Trained(value + 0.001 * run.seed, 1.0)

    def confirm(self, configs: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
        return [{"config": configs[0]}, *({"config": c, "verdict": "cannot tell", "difference": None} for c in configs[1:])]


def test_what_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    doer = Fails({"base": 0.1, "m0_p1": "out of memory"})
    found = simulated(tmp_path, 6, "30runs", doer)
    assert found["failed"] == ["m0_p1-0: out of memory"] and doer.tries == 1 and found["answer"] is None
    assert "nothing can be told" in found["why"]
    assert all("m0_p1" not in r["kept"] for r in found["rungs"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base": "no such data"}, "baseline base failed: no such data"),
        ({"base": 0.1, **{f"m{k // 4}_p{k % 4}": "broken" for k in range(6)}}, "every candidate failed: broken"),
    ],
)
def test_a_search_that_cannot_go_on_says_why(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(YoloAttnError, match=said):
        simulated(tmp_path, 6, "30runs", Fails(values))


def test_what_learns_nothing_and_what_leads_nobody(tmp_path: Path) -> None:
    class Nothing(Fails):
        def train(self, place: Any, run: Run, begin: int, until: int) -> search_run.Trained:
            return search_run.Trained(0.0, 1.0)

    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(YoloAttnError, match="learned to detect anything"):
        simulated(tmp_path / "a", 6, "30runs", Nothing({}))
    found = simulated(tmp_path / "b", 6, "30runs", Fails({"base": 0.9}))
    assert found["answer"] is None and "ahead of the baseline" in found["why"] and not found["confirmation"]
    with pytest.raises(UsageError, match="the least for a search is 16"):
        simulated(tmp_path / "c", 6, "12runs", Fails({}))


# -- the records


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_records_are_read_again(storage: str, tmp_path: Path) -> None:
    options = {"module": ["a", "b"], "where": ["neck"], "start": ["identity"]}
    ledger = search_ledger.Ledger(tmp_path, storage)
    base = ledger.add(Run("base", 0))
    a = ledger.add(Run("a", 0), {"module": "a", "where": "neck", "start": "identity"}, options)
    ledger.report(a, 10, 0.25, 7.5)
    assert ledger.decide("rung 1", lambda: {"kept": ["a"]}) == {"kept": ["a"]}
    ledger.close(base, "no memory")
    again = search_ledger.Ledger(tmp_path, storage)
    found = again.trials()
    assert [(t.run.config, dict(t.values), t.seconds, t.failed) for t in found] == [("base", {}, 0.0, "no memory"), ("a", {10: 0.25}, 7.5, "")]
    assert again.decide("rung 1", lambda: {"kept": ["b"]}) == {"kept": ["a"]}, "what was decided is decided once"
    again.close(found[1], pruned=True)
    assert [t.over for t in ledger.trials()] == [True, True]
    if storage == "journal":  # a process was killed while it wrote
        with (tmp_path / search_ledger.JOURNAL).open("ab") as stream:
            stream.write(b'{"op_code":8,"study')
        assert len(search_ledger.Ledger(tmp_path, storage).trials()) == 2
    else:
        (tmp_path / search_ledger.SQLITE).write_bytes(b"no database at all")
        with pytest.raises(FileError, match="cannot be read|damaged"):
            search_ledger.Ledger(tmp_path, storage)


def test_searches_share_a_database_and_no_trials(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'all.db'}"
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        search_ledger.Ledger(folder, url).add(Run(folder.name, 0))
    assert [[t.run.config for t in search_ledger.Ledger(f, url).trials()] for f in folders] == [["a"], ["b"]]
    assert search_ledger.without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


DRIVER = """
import sys, time, random
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import search as b
from yolo_attn.errors import YoloAttnError
from yolo_attn.study import jobs, search_course, search_ledger, search_plan, search_run
folder = Path(sys.argv[2])
folder.mkdir(exist_ok=True)
search_run.POLL = 0.05
journal = folder.parent / "journal.txt"
def note(*words):
    with journal.open("a") as f: f.write(" ".join(map(str, words)) + "\\n")
class Doer(b.Simulated):
    def train(self, place, run, begin, until):
        note("begins", run.name, begin, until)
        time.sleep(random.uniform(0.01, 0.04))
        self.noise.clear()
        self.rng = b.np.random.default_rng([run.seed, *run.config.encode()])
        self.blocks[run.seed] = float(run.seed)
        return super().train(place, run, begin, until)
    def confirm(self, configs, seeds):
        note("confirms", *configs, *seeds)
        self.rng, self.blocks = b.np.random.default_rng(5), {}
        return super().confirm(configs, seeds)
try:
    ledger = search_ledger.Ledger(folder, sys.argv[3])
    course = search_course.Course(b.space(12), search_plan.Budget(runs=40), b.EPOCHS, ledger)
    found = search_run.carry_out(folder, course, Doer(0, {"m1_p1": 12.0}, b.half), [jobs.Here(), jobs.Here()])
    print("answer", found["answer"], flush=True)
except YoloAttnError as exc:
    raise SystemExit(f"one line: {exc}")
"""


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "YOLO_ATTN_HOOK": "0", "OMP_NUM_THREADS": "1"}

    def start(storage: str = "sqlite", folder: Path = tmp_path / "s") -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "driver.py"), str(ROOT / "benchmarks"), str(folder), storage]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_two_processes_share_it(drive: Any, tmp_path: Path) -> None:
    journal, rng, process = tmp_path / "journal.txt", random.Random(0), None

    def lines() -> list[str]:
        return journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []

    for storage in ("sqlite", "sqlite", "sqlite", "sqlite"):
        known = len(lines())
        process = drive(storage)
        until = time.monotonic() + 120
        while len(lines()) == known and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)  # until a step begins: a moment by the clock would depend on the machine
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ledger = search_ledger.Ledger(tmp_path / "s")
    done = {(t.run.name, u) for t in ledger.trials() for u in t.values}
    counts = {d: sum(w.split()[1::2] == [d[0], str(d[1])] for w in lines() if w.startswith("begins")) for d in done}
    assert done, "the kills came too early to show anything"
    (tmp_path / "s" / "runs" / ".yolo_attn-base-0.lock").write_text("")  # as a kill leaves it that comes after a step's record
    both = [drive(), drive()]
    said = [p.communicate(timeout=300)[0] for p in both]
    assert all("answer m1_p1" in s for s in said), said
    again = {d: sum(w.split()[1::2] == [d[0], str(d[1])] for w in lines() if w.startswith("begins")) for d in done}
    assert again == counts, "what was recorded is trained again"
    begun = [w for w in lines()[len(lines()) - sum(1 for w in lines() if w.startswith("begins")) :] if w.startswith("begins")]
    killed = 4 * 2  # each kill may have ended a step at each place
    assert len(begun) - len(set(begun)) <= killed, "two processes trained the same"
    assert len({w for w in lines() if w.startswith("confirms")}) == 1
    assert not [p for p in (tmp_path / "s" / "runs").iterdir() if p.name.endswith(".lock")]


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    ledger = search_ledger.Ledger(tmp_path)
    trial = ledger.add(Run("base", 0))

    def full(*args: Any, **more: Any) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(ledger._study._storage, "set_trial_user_attr", full)
    with pytest.raises(FileError, match="disk is full"):
        ledger.report(trial, 3, 0.1, 1.0)
    assert search_ledger.Ledger(tmp_path).trials()[0].values == {}


# -- candidates, the log, the command


def test_candidates_are_what_differs() -> None:
    made, space = search.candidates("yolov5n.yaml", ["ECA", "SimAM"], ["neck"], [])
    assert made[0].name == "yolov5n" == space.base
    assert len(made) == 1 + len(space.choices) and len({c.sha256 for c in made}) == len(made)
    assert space.name({"module": "ECA", "where": "neck", "start": "paper"}) in space.choices
    assert space.options["where"] == ["neck"]
    with pytest.raises(ConfigError, match="Attentoin"):
        search.candidates("yolov5n.yaml", ["Attentoin"], [], [])


def test_the_figure_of_a_rung(tmp_path: Path) -> None:
    log = tmp_path / "results.csv"
    log.write_text("epoch,  metrics/mAP50-95(B), x\n1, 0.1, 1\n2, 0.3, 1\n3, nan, 1\n4, 0.9, 1\n", encoding="utf-8")
    assert search.figure(log, 1) == 0.1 and search.figure(log, 3) == 0.3 and search.figure(log, 4) == 0.9
    log.write_text("               epoch,  metrics/mAP_0.5:0.95\n  0,   0.25\n", encoding="utf-8")
    assert search.figure(log, 5) == 0.25
    log.write_text("epoch\n1\n", encoding="utf-8")
    assert search.figure(log, 5) == 0.0


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command in this process, in a fresh folder; its exit code and all that it says."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str]:
        code = yolo_attn_cli.main(argv)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_what_the_command_refuses(command: Any, tmp_path: Path) -> None:
    assert command("search", "--budget", "soon")[0] == 2
    code, said = command("search", "--attention", "Attentoin", "--where", "neck", "--start", "paper")
    assert code == 1 and "Attentoin" in said and not (tmp_path / "search").exists()
    assert command("search", "save=False")[0] == 2 and command("search", "--epochs", "0")[0] == 2
    code, said = command("search", "--ray", "--device", "0", "--attention", "ECA", "--epochs", "2")
    assert code == 2 and "Ray hands the devices out" in said
    assert command("search", "--ray-gpus", "0.5")[0] == 2 and command("search", "--device", "0,1", "--jobs", "1")[0] == 2
    assert command("search", "--attention", "ECA", "--where", "neck", "--storage", "nowhere")[0] == 2
    assert "not 0+1" in command("search", "--device", "0+1")[1]
    code, said = command("search", "--attention", "ECA", "--where", "neck", "--start", "paper", "--budget", "13runs")
    assert code == 2 and "--budget 13runs: the least for a search is 14 full trainings, 14runs" in said
    assert not (tmp_path / "search").exists(), "nothing has trained, and the folder would be of that budget"


def test_the_same_folder_takes_the_same_search_alone(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that reports what a host would have logged; the budget has no room, which is said."""
    (tmp_path / "stand_in.py").write_text(
        "import json, sys\nfrom pathlib import Path\nfrom yolo_attn.study import worker\n"
        "task = json.loads(Path(sys.argv[1]).read_text())\nfolder = Path(task['folder'])\n"
        "(folder / 'weights').mkdir(exist_ok=True)\n(folder / 'weights' / 'last.pt').write_text('x')\n"
        "(folder / 'results.csv').write_text('epoch,metrics/mAP50-95(B)\\n' + '1,0.3\\n' * task['until'])\n"
        "(folder / worker.RESULT).write_text(json.dumps({'seconds': 60.0}))\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(jobs, "COMMAND", (str(tmp_path / "stand_in.py"),))
    argv = ("search", "--attention", "ECA", "--where", "neck", "--start", "paper", "--epochs", "6", "-o", str(tmp_path / "s"))
    code, said = command(*argv, "--budget", "20m")
    assert code == 2 and "--budget has room for 6.67 full trainings" in said and "takes 3.0 minutes" in said
    code, said = command(*argv, "--budget", "2h")
    assert code == 1 and "budget is '20m' there and '2h' here" in said
    code, said = command(*argv[:-1], str(tmp_path / "t"), "--budget", "20runs", "--save-json", str(tmp_path / "a.json"))
    assert code == 0 and "answer: none, as no candidate is ahead of the baseline" in said, said
    told = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert told["answer"] is None and told["tried"] == 1 and len(told["rungs"]) == 2
