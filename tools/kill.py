"""Kill real commands at chosen moments and check what they leave behind.

    python tools/kill.py                        # every case, three rounds each; a few minutes on two cores
    python tools/kill.py --cases insert data    # the fast ones
    python tools/kill.py --rounds 20 --seed 7

A process is killed in one of three ways: ``byte`` (in the middle of a write, at a random byte), ``step`` (SIGKILL just
before a random fsync or rename), ``time`` (SIGKILL or SIGTERM at a random moment). After each kill:

- every file that the command writes is unchanged, or new and complete;
- ``--resume`` completes a training, with each epoch once in its log, or says why there is nothing to resume;
- the next command removes all leftovers, beside the files and in the temporary folder.

Prints a table; the exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

EPOCHS = 3
TRAIN = "--img 64 --batch 4 --device cpu --workers 0"

# Runs a command line of the kit prepared to be killed; argv: way, number, words of the command.
CHILD = """
import os, random, signal, sys
way, number, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if way == "byte":
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
elif way == "step":
    left = [number]
    def counted(function):
        def step(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return step
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
sys.argv = ["yolo-attn", *words]
from yolo_attn.cli import main
raise SystemExit(main())
"""


@dataclass(frozen=True)
class Case:
    """One command to kill.

    Args:
        name: Its name for --cases.
        command: The command line.
        targets: The files that it writes, each with a function that checks its content.
        byte: The largest byte at which a write is cut.
        steps: The smallest number of fsyncs and renames that it performs.
        seconds: The range of moments at which it is killed by time.
        training: The folder of a run that must be resumable.
    """

    name: str
    command: str
    targets: dict[str, Callable[[Path], None]]
    byte: int
    steps: int
    seconds: tuple[float, float]
    training: str = ""


@dataclass
class Tally:
    """Results of one case."""

    rounds: int = 0
    killed: int = 0
    old: int = 0
    new: int = 0
    resumed: int = 0
    losses: list[str] = field(default_factory=list)


def yaml_whole(path: Path) -> None:
    """Raise unless the file is a model."""
    from yolo_attn.model_yaml import check, load

    check.validate(load.read(path), str(path))


def archive_whole(path: Path) -> None:
    """Raise unless the file is a checkpoint or bundle whose every entry has its checksum."""
    with zipfile.ZipFile(path) as file:
        bad = file.testzip()
    if bad is not None:
        raise ValueError(f"{bad} is damaged")


def onnx_whole(path: Path) -> None:
    """Raise unless the file is a valid ONNX model."""
    import onnx

    onnx.checker.check_model(str(path), full_check=True)


def json_whole(path: Path) -> None:
    """Raise unless the file is JSON; a report may be missing, since it is removed before its file is replaced."""
    if path.is_file():
        json.loads(path.read_text(encoding="utf-8"))


def data_whole(path: Path) -> None:
    """Raise unless the data set has its 24 + 8 images, each with labels."""
    found = [
        len(list((path.parent / kind / split).iterdir())) for kind in ("images", "labels") for split in ("train", "val")
    ]
    if found != [24, 8, 24, 8]:
        raise ValueError(f"{found} files")


CHECKPOINTS = {"runs/train/exp/weights/last.pt": archive_whole, "runs/train/exp/weights/best.pt": archive_whole}
FINISHED = {
    **CHECKPOINTS,
    "runs/train/exp/weights/best.onnx": onnx_whole,
    "runs/train/exp/weights/best.onnx.json": json_whole,
}
FRESH = f"train --cfg yolov5n_se.yaml --data shapes/shapes.yaml --epochs {EPOCHS} {TRAIN} --export onnx"
CASES = {
    c.name: c
    for c in (
        Case(
            "insert",
            "insert m.yaml --module ECA --where backbone -o m.yaml --force",
            {"m.yaml": yaml_whole},
            2000,
            2,
            (0.2, 1.5),
        ),
        Case("data", "data made --train 24 --val 8 --size 64", {"made/shapes.yaml": data_whole}, 9000, 60, (0.3, 2.0)),
        Case(
            "transfer",
            "transfer base.pt yolov5n_se.yaml -o t.pt --force --json t.json",
            {"t.pt": archive_whole, "t.json": json_whole},
            5_000_000,
            4,
            (2.0, 6.0),
        ),
        Case(
            "bundle",
            "export base.pt --format bundle -o b.bundle",
            {"b.bundle": archive_whole},
            4_000_000,
            2,
            (2.0, 6.0),
        ),
        Case(
            "onnx",
            "export base.pt --imgsz 64 -o o.onnx",
            {"o.onnx": onnx_whole, "o.onnx.json": json_whole},
            8_000_000,
            4,
            (2.0, 9.0),
        ),
        Case("train", FRESH, FINISHED, 6_000_000, 12, (3.0, 14.0), "runs/train/exp"),
        Case("pretrained", f"{FRESH} --weights base.pt", FINISHED, 6_000_000, 14, (3.0, 14.0), "runs/train/exp"),
    )
}


class World:
    """A folder with the initial files of the cases, their temporary files and caches."""

    def __init__(self, root: Path) -> None:
        self.here, self.temp = root / "here", root / "tmp"
        for folder in (self.here, self.temp):
            folder.mkdir()
        self.env = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "TMPDIR": str(self.temp), "YOLO_ATTN_CACHE": str(root / "cache"), "YOLO_CONFIG_DIR": str(root / "config"),
            "YOLO_ATTN_CONFIG_DIR": str(root / "config"), "YOLO_OFFLINE": "true", "MPLBACKEND": "agg", "MPLCONFIGDIR": str(root / "config"),
        }  # fmt: skip
        (root / "config").mkdir()

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to completion."""
        words = [sys.executable, "-m", "yolo_attn", *command.split()]
        return subprocess.run(
            words, cwd=self.here, env=self.env, capture_output=True, text=True, encoding="utf-8", timeout=600
        )

    def launch(self, way: str, number: int, command: str) -> subprocess.Popen[bytes]:
        """Launch a command that will be killed."""
        words = [sys.executable, "-c", CHILD, way, str(number), *command.split()]
        return subprocess.Popen(
            words, cwd=self.here, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ok(self, command: str) -> None:
        """Run a command that must succeed."""
        done = self.run(command)
        if done.returncode:
            raise SystemExit(f"yolo-attn {command} failed:\n{done.stderr}")

    def leftovers(self) -> list[str]:
        """Return files with the kit's prefix, beside the targets and in the temporary folder."""
        found = [p for p in self.here.rglob("*") if p.name.startswith((".yolo_attn", "yolo_attn-"))]
        found += [p for p in self.here.rglob(".*") if p.name.endswith((".pt", ".part", ".lock"))]
        return sorted({str(p) for p in [*found, *self.temp.glob("*yolo_attn*")]})


def deaths(case: Case, rounds: int, rng: random.Random) -> Iterator[tuple[str, int, float, int]]:
    """Yield way, number, seconds and signal of each round, cycling through the ways."""
    ways = ("byte", "step", "time") if hasattr(signal, "SIGXFSZ") else ("step", "time")
    for k in range(rounds):
        way = ways[k % len(ways)]
        number = rng.randint(1, case.byte) if way == "byte" else rng.randrange(case.steps)
        yield way, number, rng.uniform(*case.seconds), rng.choice((signal.SIGKILL, signal.SIGTERM))


def play(case: Case, world: World, way: str, number: int, seconds: float, by: int, tally: Tally) -> None:
    """Kill once, then check."""
    if case.training:
        shutil.rmtree(world.here / "runs", ignore_errors=True)
    if case.name == "data":
        shutil.rmtree(world.here / "made", ignore_errors=True)
    before = {n: (world.here / n).read_bytes() if (world.here / n).is_file() else None for n in case.targets}
    process = world.launch(way, number, case.command)
    if way == "time":
        time.sleep(seconds)
        process.send_signal(by)
    code = process.wait(timeout=600)
    tally.rounds += 1
    tally.killed += code < 0 or code == 143
    at = {
        "byte": f"at byte {number}",
        "step": f"before step {number}",
        "time": f"after {seconds:.1f} s by {signal.Signals(by).name}",
    }
    spot = f"{case.name}, {at[way]} (ended with {code})"

    def whole() -> None:
        for name, check in case.targets.items():
            path = world.here / name
            now = path.read_bytes() if path.is_file() else None
            if now == before[name]:
                tally.old += 1
                continue
            try:
                check(path)
                tally.new += 1
            except Exception as exc:  # whatever the reader of a damaged file raises
                tally.losses.append(f"{spot}: {name} is neither the old file nor whole: {type(exc).__name__}: {exc}")

    whole()
    problem = _go_on(case, world, tally) if case.training else world.run("list").stderr.count("Traceback") or None
    if problem:
        tally.losses.append(f"{spot}: {problem}")
    left = world.leftovers()
    if left:
        tally.losses.append(f"{spot}: left after the next command: {', '.join(left)}")


def _go_on(case: Case, world: World, tally: Tally) -> str | None:
    """Resume, and return the problem, if any."""
    run = world.here / case.training
    done = world.run(f"train --resume {case.training} --export onnx")
    if "Traceback" in done.stderr:
        return f"--resume ends in a traceback: {done.stderr.strip().splitlines()[-1]}"
    if done.returncode:
        said = next((t for t in done.stderr.splitlines() if t.startswith("yolo-attn train:")), done.stderr[-300:])
        nothing = not (run / "weights" / "last.pt").is_file() and (
            "nothing to resume" in said or "checkpoint not found" in said
        )
        finished = "finished run" in said and (run / "weights" / "best.onnx.json").is_file()
        return None if nothing or finished else f"--resume says: {said}"
    tally.resumed += 1
    for name, check in FINISHED.items():
        check(world.here / name)
    rows = (run / "results.csv").read_text(encoding="utf-8").splitlines()[1:]
    epochs = [int(float(r.split(",")[0])) for r in rows]
    return None if epochs == list(range(1, EPOCHS + 1)) else f"the log has epochs {epochs}"


def prepare(world: World, names: list[str]) -> None:
    """Create the initial files of the cases: an old file at every target, so that something can be lost."""
    if "insert" in names:
        world.ok("insert yolov5n.yaml --module SE --where neck -o m.yaml")
    if set(names) - {"insert", "data"}:
        world.ok("data shapes --train 8 --val 4 --size 64")
        world.ok(f"train --cfg yolov5n.yaml --data shapes/shapes.yaml --epochs 1 {TRAIN} --noplots --project base")
        shutil.copy(world.here / "base" / "exp" / "weights" / "best.pt", world.here / "base.pt")
    for name in ("transfer", "bundle", "onnx"):
        if name in names:
            world.ok(CASES[name].command)


def main() -> int:
    """Kill, check, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="kills per case (default 3)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (default 0)")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=f"some of {', '.join(CASES)} (default: all)"
    )
    args = parser.parse_args()
    if os.name == "nt":
        print("kills by signal need a POSIX system", file=sys.stderr)
        return 2
    rng, tallies = random.Random(args.seed), {n: Tally() for n in args.cases}
    with tempfile.TemporaryDirectory(prefix="kill_") as folder:
        world = World(Path(folder))
        prepare(world, args.cases)
        for name, tally in tallies.items():
            for way, number, seconds, by in deaths(CASES[name], args.rounds, rng):
                play(CASES[name], world, way, number, seconds, by, tally)
    print(f"{'case':<12}{'rounds':>7}{'killed':>7}{'old':>6}{'new':>6}{'resumed':>9}{'lost':>6}")
    for name, t in tallies.items():
        print(f"{name:<12}{t.rounds:>7}{t.killed:>7}{t.old:>6}{t.new:>6}{t.resumed:>9}{len(t.losses):>6}")
    losses = [loss for t in tallies.values() for loss in t.losses]
    print("\n".join(["", *losses]) if losses else "\nnothing was lost")
    return 1 if losses else 0


if __name__ == "__main__":
    raise SystemExit(main())
