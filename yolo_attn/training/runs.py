"""The folder of a run: one process at a time, atomic checkpoints, a log without duplicate epochs, resuming."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import CheckpointError, FileError, YoloAttnError
from ..log import announce
from ..system import locks, processes
from ..system.drafts import LOCK, lock_name, note, scratch

__all__ = [
    "LAUNCHER",
    "State",
    "arguments_of",
    "checkpoint_to_resume",
    "first_rank",
    "folder_to_resume",
    "held",
    "joined",
    "launcher",
    "newest_unfinished",
    "published_to",
    "state_of",
    "train_on",
    "trim_log",
    "whole_checkpoints",
]

LAUNCHER = "YOLO_ATTN_LAUNCHER"  # in the environment of processes that train for another: which, and the folder that it holds
WORKER = lock_name("worker")
PATIENCE = 30.0  # seconds for a process to end whose launcher has ended
FIRST = ("args.yaml", "opt.yaml", "results.csv")  # files that a host writes into a run's folder before any checkpoint


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a run's folder for this process; a lock that a killed process left is taken over with a message.

    What the killed one had launched ends a moment later than it, and is waited for.

    Raises:
        FileError: Another process is training there.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, worker = folder / LOCK, folder / WORKER
    before = _take(lock, folder)
    try:
        try:
            _take(worker, folder, time.monotonic() + PATIENCE)
        finally:  # Ctrl-C at the moment in which it was taken
            locks.release(worker)
        if before:
            announce("%s: taking over the lock of %s, which no longer runs", folder, before)
        note(folder)
        yield
    finally:
        locks.clear(worker)  # of a process that was launched, and stopped
        locks.release(lock)


def _take(lock: Path, folder: Path, until: float = 0.0) -> str:
    silent_until = time.monotonic() + 3
    while True:
        try:
            return locks.take(lock)
        except locks.Busy as exc:
            if silent_until < time.monotonic() < until:
                announce("%s: waiting for %s, whose launcher has ended", folder, exc)
                silent_until = until
            if time.monotonic() > until:
                raise FileError(
                    f"{folder}: {exc} is training there. Wait for it, stop it, or give this run another --name."
                ) from exc
        time.sleep(0.1)


def first_rank() -> bool:
    """Whether this process, of those that train a run together, is the one that writes its files; it may train alone."""
    return os.environ.get("RANK", "-1") in ("-1", "0")


def launcher(folder: Path) -> str:
    """Return the value of :data:`LAUNCHER` for processes that train for this one, which holds the folder."""
    return f"{processes.owner()} {folder.resolve()}"


@contextlib.contextmanager
def joined() -> Iterator[bool]:
    """Train for the process that launched this one, if one says so: end when it ends, and hold its folder until then.

    Of several processes of a run, the one of rank 0 holds it.

    Yields:
        Whether one says so.

    Raises:
        FileError: Another process is training in the folder, or it cannot be written.
    """
    process, _, folder = os.environ.pop(LAUNCHER, "").partition(" ")  # what this one launches trains for itself
    if process == processes.owner():  # a training within a training, as in a callback
        process = ""
    if process:
        processes.end_with(process)
    if not process or not first_rank():
        yield bool(process)
        return
    lock = Path(folder) / WORKER
    try:
        _take(lock, Path(folder), time.monotonic() + PATIENCE)
    except OSError as exc:  # a script's own would pass through
        raise FileError(f"{folder}: cannot be written: {exc.strerror}") from exc
    try:
        yield True
    finally:
        locks.release(lock)


@contextlib.contextmanager
def published_to(folder: Path) -> Iterator[Path]:
    """Yield a folder for drafts, which are moved into `folder`, file by file, on exit.

    Raises:
        OSError: The files cannot be written; those in `folder` are intact.
    """
    with scratch(folder) as drafts:
        yield drafts
        for draft in sorted(drafts.iterdir()):
            files.publish(draft, folder / draft.name)


@contextlib.contextmanager
def whole_checkpoints(torch: Any) -> Iterator[None]:
    """Make `torch.save` write atomically, since the hosts strip their checkpoints in place."""
    original = torch.save

    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            original(obj, f, *args, **kwargs)
            return
        buffer = io.BytesIO()  # torch itself would report a full disk as an error of its archive
        original(obj, buffer, *args, **kwargs)
        files.write_bytes(f, buffer.getbuffer(), error=None)

    torch.save = save
    try:
        yield
    finally:
        torch.save = original


def folder_to_resume(last: Path, recorded: Any) -> Path:
    """Return the folder of a resumed run, with a message if it is not the one that the checkpoint records.

    Args:
        last: The checkpoint to resume.
        recorded: The folder that it records.
    """
    here = last.resolve().parent.parent if last.resolve().parent.name == "weights" else None
    before = Path(str(recorded)) if recorded else None
    if here is None:
        if before is None:
            return last.resolve().parent
        announce("%s is not in a run's folder: the run is resumed in %s, where it began", last, before)
        return before
    if before is not None and before.resolve() != here:
        announce("the run began in %s and is resumed in %s", before, here)
    return here


def trim_log(log: Path, epochs: int, *, first: int = 1) -> None:
    """Remove the lines of a `results.csv` beyond the epochs of a checkpoint, and incomplete ones.

    Args:
        log: The file, which may be missing.
        epochs: Number of epochs that the checkpoint was trained for.
        first: The number of the first epoch in the file: 1 for ultralytics, 0 for classic YOLOv5.
    """
    if not log.is_file():
        return
    head, *rows = files.read_text(log, FileError).splitlines(keepends=True)
    kept: dict[int, str] = {}
    for row in rows:
        with contextlib.suppress(ValueError, OverflowError):
            number = int(float(row.split(",")[0]))
            if number - first < epochs and row.endswith("\n") and row.count(",") == head.count(","):
                kept[number] = row
    if list(kept.values()) != rows:
        files.write_text(log, head + "".join(kept.values()))


@dataclass(frozen=True)
class State:
    """The progress of a run, from its checkpoint.

    Args:
        epoch: Epochs trained; 0 if unknown.
        epochs: Epochs requested; 0 if unknown.
        resumable: It contains the optimizer, and epochs are left.
        stripped: The optimizer was removed: the run had ended.
    """

    epoch: int
    epochs: int
    resumable: bool
    stripped: bool


def state_of(last: Path) -> State:
    """Read the progress of a run of either host, without running code of the checkpoint.

    Raises:
        CheckpointError: It cannot be read.
    """
    from ..weights import pickles

    content = pickles.load(last)
    if not isinstance(content, dict):
        raise CheckpointError(f"{last} is not a checkpoint of a run that can be resumed.")
    epoch = content.get("epoch")
    epoch = epoch + 1 if isinstance(epoch, int) and epoch >= 0 else 0
    asked = content.get("train_args") or content.get("opt") or {}
    epochs = (asked if isinstance(asked, dict) else getattr(asked, "__dict__", {})).get("epochs")
    epochs = epochs if isinstance(epochs, int) else 0
    stripped = content.get("optimizer") is None
    return State(epoch, epochs, not stripped and epoch > 0 and (not epochs or epoch < epochs), stripped)


def arguments_of(last: Path) -> dict[str, Any]:
    """Return the training arguments in a checkpoint of the ultralytics host.

    Raises:
        CheckpointError: It cannot be read, or is not of a training.
    """
    from ..weights import pickles

    content = pickles.load(last)
    content = content if isinstance(content, dict) else {}
    found = content.get("train_args")
    network = any(isinstance(content.get(k), pickles.Inert) for k in ("model", "ema"))
    if not network or not isinstance(found, dict) or not {"data", "imgsz"} <= found.keys():
        raise CheckpointError(f"{last} is not a checkpoint of a run that can be resumed.")
    return dict(found)


def checkpoint_to_resume(named: Any, project: Path) -> Path:
    """Return the `last.pt` for `--resume`.

    Args:
        named: A checkpoint, a run's folder, or True for the newest unfinished run.
        project: The folder in which to look for that.

    Raises:
        CheckpointError: There is none; the message says what to do instead.
    """
    if named is True:
        return newest_unfinished(project)
    path = files.expand(str(named))
    folder = path if path.is_dir() else path.parent.parent if path.parent.name == "weights" else None
    last = path / "weights" / "last.pt" if path.is_dir() else path
    if last.is_file():
        return last.resolve()
    if folder is not None and any((folder / n).is_file() for n in FIRST):
        raise _stopped_early(f"--resume {named}", folder)
    raise CheckpointError(f"--resume {named}: checkpoint not found (looked in {Path.cwd()})")


def _stopped_early(asked: str, folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{asked}: nothing to resume: the run was stopped before its first checkpoint was saved. Run it "
        f"again with its options and, for the same folder, --exist-ok --project "
        f"{shlex.quote(str(folder.resolve().parent))} --name {shlex.quote(folder.resolve().name)}"
    )


def train_on(last: Path) -> str:
    """Return the options for a new run from the weights of a finished one."""
    return f"--weights {shlex.quote(str(last))} --epochs N"


def newest_unfinished(project: Path) -> Path:
    """Return the `last.pt` of the newest run in a folder that can be resumed.

    Raises:
        CheckpointError: There is none; the message names the newest finished run, if any.
    """
    found = sorted(project.glob("**/last.pt"), key=lambda p: p.stat().st_mtime, reverse=True)
    if not found:
        begun = [p for name in FIRST for p in project.glob(f"**/{name}")]
        if begun:
            folder = max(begun, key=lambda p: p.stat().st_mtime).parent
            raise _stopped_early(f"--resume: {folder}", folder)
        raise CheckpointError(f"--resume: no last.pt in {project}. Give one: --resume PATH/last.pt")
    for last in found:
        try:
            if state_of(last).resumable:
                return last
        except YoloAttnError as exc:
            announce("skipping %s: %s", last, exc)
    raise CheckpointError(
        f"--resume: no run in {project} can be resumed; the newest, {found[0].parent.parent}, is finished. "
        f"To continue training from it: {train_on(found[0])}"
    )
