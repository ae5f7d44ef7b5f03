"""Runs as tasks of a Ray cluster: a GPU, or a share of one, for each; what they find comes back into the study's folder.

Nodes need the kit in the same version, and data set, weights and plug-ins at the same paths; no shared folder. A run is
trained in a scratch folder of its node, its log of epochs comes as it grows, and its files when it ends. A run whose
worker or node is lost is started again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .._version import __version__
from ..errors import UsageError, YoloAttnError, first_line
from ..files import write_bytes, write_text
from ..log import announce
from ..system.drafts import scratch
from ..words import option
from . import jobs as working
from . import worker

__all__ = ["OnRay", "Ray", "connected"]

TRIES = 3  # of one run: what is lost as often is its own doing, as memory that runs out
LOG = "results.csv"
PASSED_ON = ("CLEARML_", "COMET_", "MLFLOW_", "WANDB_", "YOLO_ATTN_PLUGINS", "YOLO_AUTOINSTALL", "YOLO_OFFLINE")  # what users set for hosts and trackers


@dataclass(frozen=True)
class Ray:
    """The cluster, and what each run takes of it.

    Args:
        address: As ``ray.init`` takes it; empty for that of the environment, or a new one on this machine.
        gpus: Share of a GPU, above 0 and up to 1; absent for one where the cluster has any, else 0.
        cpus: CPUs.
    """

    address: str = ""
    gpus: float | None = None
    cpus: float = 1


@contextlib.contextmanager
def connected(cluster: Ray, jobs: int | None = None) -> Iterator[list[working.Place]]:
    """Connect to a cluster and yield its places, `jobs` or as many as it has room for now.

    Raises:
        UsageError: A share that no run can have.
        YoloAttnError: No Ray, or no cluster at the address.
    """
    if cluster.gpus is not None and not 0 <= cluster.gpus <= 1:
        raise UsageError(f"{option('ray_gpus', cluster.gpus)}: a run takes a GPU or a share of one, from 0 to 1")
    if cluster.cpus <= 0:
        raise UsageError(f"{option('ray_cpus', cluster.cpus)}: a run takes more than that")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what a later Ray does, and warns of until then
    try:
        import ray
    except ImportError as exc:
        raise YoloAttnError(f"{option('ray')} needs the package ray: {exc}. pip install 'yolo_attn[ray]'") from exc
    mine = not ray.is_initialized()
    if mine:
        try:
            _reach(cluster.address)
            ray.init(
                address=cluster.address or None, log_to_driver=False, logging_level=logging.ERROR,
                include_dashboard=False if not cluster.address and "RAY_ADDRESS" not in os.environ else None,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
            where = cluster.address or os.environ.get("RAY_ADDRESS", "")
            raise YoloAttnError(f"{option('ray', where)}: no Ray cluster there: {first_line(exc)}") from exc
    try:
        there = ray.cluster_resources()
        gpus = float(there.get("GPU", 0) > 0) if cluster.gpus is None else cluster.gpus
        room = there.get("GPU", 0) / gpus if gpus else there.get("CPU", 0) / cluster.cpus
        count = jobs or max(1, math.floor(room + 1e-9))
        announce("Ray: %d runs at a time, each with %g CPUs and %g GPUs", count, cluster.cpus, gpus)
        yield [OnRay(cluster.cpus, gpus) for _ in range(count)]
    finally:
        if mine:
            ray.shutdown()


def _reach(address: str) -> None:
    """Ask whether anybody answers at ``HOST:PORT`` or ``ray://HOST:PORT``: Ray itself tries for minutes.

    Raises:
        OSError: Nobody does.
    """
    named = (address or os.environ.get("RAY_ADDRESS", "")).partition("://")
    host, colon, port = (named[2] or named[0]).rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class OnRay:
    """A place in the connected cluster.

    Args:
        cpus: CPUs of a run.
        gpus: GPUs of a run, at most 1.
    """

    def __init__(self, cpus: float, gpus: float) -> None:
        self.cpus, self.gpus = cpus, gpus
        self._guard = threading.Lock()
        self._stream: Any = None
        self._ended = False
        self._node = "ray"

    @property
    def name(self) -> str:
        """The node that trained last."""
        return self._node

    def train(self, folder: Path, task: Mapping[str, Any]) -> int:
        """Do a task somewhere in the cluster, again where it is lost."""
        parcel = {
            "task": dict(task), "version": __version__, "command": list(working.COMMAND), "gpus": self.gpus,
            "files": _packed(folder), "cfg": _config(task),
        }  # fmt: skip
        lost = ""
        for left in reversed(range(TRIES)):
            try:
                return self._once(folder, parcel)
            except _Lost as exc:
                lost = str(exc)
                if self._ended:
                    break
                announce("%s: its worker was lost (%s)%s", folder.name, lost, "; starting it again" if left else "")
        reason = f"its Ray worker was lost {TRIES} times: {lost}"
        write_text(folder / worker.TROUBLE, json.dumps({"reason": reason}))
        return worker.FAILED

    def _once(self, folder: Path, parcel: dict[str, Any]) -> int:
        import ray
        from ray.exceptions import RayError, RayTaskError

        remote = ray.remote(on_node).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, num_returns="streaming", name=folder.name,
            runtime_env={"env_vars": _environment()},
        )  # fmt: skip
        with self._guard:
            if self._ended:
                return worker.FAILED
            self._stream = remote.remote(parcel)
        try:
            for reference in self._stream:
                what, value = ray.get(reference)
                if what == "node":
                    self._node = value
                elif what == "log":
                    write_bytes(folder / LOG, value, durable=False)
                else:
                    code, found = value
                    for name, data in found.items():
                        target = folder / _inside(name)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        write_bytes(target, data, durable=False)
                    return int(code)
        except RayTaskError as exc:  # an error in `on_node`, none of the training
            reason = first_line(exc.cause) if isinstance(exc.cause, YoloAttnError) else f"on a Ray node: {exc.cause!r}"
            write_text(folder / worker.TROUBLE, json.dumps({"reason": reason}))
            return worker.FAILED
        except RayError as exc:
            raise _Lost(type(exc).__name__) from exc
        finally:
            with self._guard:
                self._stream = None
        raise _Lost("it ended without a result")

    def end(self) -> None:
        """Cancel what runs."""
        import ray

        with self._guard:
            self._ended = True
            if self._stream is not None:
                with contextlib.suppress(Exception):  # it may have ended, or the cluster
                    ray.cancel(self._stream, force=True)


class _Lost(Exception):
    """A worker or its node is gone."""


def _environment() -> dict[str, str]:
    """What a node's process is given: settings of hosts and trackers, and the kit where no package installs it."""
    out = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
    try:
        importlib.metadata.version("yolo_attn")
    except importlib.metadata.PackageNotFoundError:
        home = str(Path(__file__).resolve().parents[2])
        out["PYTHONPATH"] = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
    return out


def _packed(folder: Path) -> dict[str, bytes]:
    """Every file of a run's folder by its name in it, but locks and the checkpoints of earlier rungs."""
    there = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in there if not p.name.startswith("rung-")}


def _inside(name: str) -> PurePosixPath:
    """A name of a file in a run's folder, and in no other.

    Raises:
        YoloAttnError: It leads out of it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise YoloAttnError(f"a Ray node sends a file named {name!r}, which is not in the run's folder")
    return path


def _config(task: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """Name and content of the study's config; None where the YAML names files beside it, and stays where it is."""
    argv = task["argv"]
    if "--cfg" not in argv:
        return None
    path, project = Path(argv[argv.index("--cfg") + 1]), Path(argv[argv.index("--project") + 1])
    return (path.name, path.read_bytes()) if path.parent == project.parent / "configs" and path.is_file() else None


# -- on a node


def on_node(parcel: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Do a task on this node, and yield what there is of it as it comes.

    Yields:
        ``("node", name)``, then ``("log", bytes)`` whenever an epoch has ended, at last ``("done", (exit code, files))``.

    Raises:
        YoloAttnError: This node lacks a file, or has another.
    """
    import ray

    node = f"ray {ray.util.get_node_ip_address()}"
    if parcel["version"] != __version__:
        raise YoloAttnError(f"{node} has yolo_attn {__version__}, and the study is of {parcel['version']}")
    _check_files(node, parcel["task"])
    yield "node", node
    with scratch() as home:
        folder = home / "runs" / Path(parcel["task"]["folder"]).name
        folder.mkdir(parents=True)
        for name, data in parcel["files"].items():
            target = folder / _inside(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, data, durable=False)
        file = folder / "task.json"
        write_text(file, json.dumps(_at_home(parcel, home, folder)), durable=False)
        before = b""
        with working.launched([*parcel["command"], str(file)], folder / "log.txt") as child:
            while child.poll() is None:
                time.sleep(0.5)
                now = _read(folder / LOG)
                if now != before:
                    before = now
                    yield "log", now
        yield "done", (child.returncode, _packed(folder))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _at_home(parcel: Mapping[str, Any], home: Path, folder: Path) -> dict[str, Any]:
    """Return the task with the paths and the device that it has on this node."""
    task, argv = dict(parcel["task"]), list(parcel["task"]["argv"])
    new = {"--project": str(folder.parent), "--resume": str(folder / "weights" / "last.pt")}
    if parcel["cfg"] is not None:
        name, data = parcel["cfg"]
        (home / "configs").mkdir()
        write_bytes(home / "configs" / name, data, durable=False)
        new["--cfg"] = str(home / "configs" / name)
    if task.get("embedded"):
        from ..training import shapes

        task["data"] = new["--data"] = str(shapes.make())
    for k, word in enumerate(argv[:-1]):
        if word in new:
            argv[k + 1] = new[word]
    argv = working.with_device(argv, "0" if parcel["gpus"] else "cpu")  # Ray shows a process its own GPU alone
    return {**task, "folder": str(folder), "argv": argv}


def _check_files(node: str, task: Mapping[str, Any]) -> None:
    from . import plan

    for what, wanted, hashed in (("data", task.get("data_sha256"), plan.hash_data), ("weights", task.get("weights_sha256"), plan.hash_file)):
        path = task.get(what)
        if wanted and path and not (what == "data" and task.get("embedded")) and _hash(hashed, path) != wanted:
            there = "has other files of" if Path(path).is_file() else "lacks"
            raise YoloAttnError(f"{node} {there} {path}: {what} has to be at the same path on every node")
    argv = task["argv"]
    for k, word in enumerate(argv[:-1]):
        if word == "--plugin" and not Path(argv[k + 1]).is_file():
            raise YoloAttnError(f"{node} lacks {argv[k + 1]}: plug-ins have to be at the same path on every node")


@functools.lru_cache(maxsize=8)
def _hash(hashed: Any, path: str) -> str:
    return str(hashed(path))
