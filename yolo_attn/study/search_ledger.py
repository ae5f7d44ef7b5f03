"""What a search has found so far, kept by Optuna: a trial for each candidate and seed, its figure at the end of each rung.

Optuna keeps it in an SQLite file, in a file of its own for network folders, or in any database that it knows, and
`optuna-dashboard` shows it. Whoever trains a trial holds a lock of the operating system, which ends with its process; so a
trial of a killed process is taken up at once, from the end of its last rung. What is decided at the end of a rung is kept
as well, and is decided once.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FileError, UsageError, YoloAttnError, first_line
from ..files import read_text, write_bytes, write_text
from ..system import locks
from ..system.drafts import lock_name
from ..words import option
from .plan import Run

__all__ = ["Ledger", "Trial", "require", "without_password"]

NAME = "yolo_attn search"
SQLITE, JOURNAL = "optuna.db", "optuna.log"


@dataclass(frozen=True)
class Trial:
    """One candidate with one seed.

    Args:
        number: Optuna's.
        run: Config and seed.
        values: The figure at the end of each rung, by epochs.
        seconds: Of training, all rungs together.
        failed: Why it failed; empty where it did not.
        over: No rung is left for it.
    """

    number: int
    run: Run
    values: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""
    over: bool = False


class Ledger:
    """The trials of a search and its decisions.

    Args:
        folder: Of the search.
        storage: ``sqlite``, ``journal``, a URL of a database, or a storage of Optuna's.

    Raises:
        YoloAttnError: No Optuna.
        FileError: The records cannot be read or written.
    """

    def __init__(self, folder: Path, storage: Any = "sqlite") -> None:
        require()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self._lock = folder / lock_name("search")
        self._thread = threading.RLock()
        self._depth = 0
        with self.alone(), self._told(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna says of its own experimental and deprecated options
            self._study = optuna.create_study(
                storage=_storage(folder, storage), study_name=_name(folder, storage), direction="maximize", load_if_exists=True,
                sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, constant_liar=True),
                pruner=optuna.pruners.NopPruner(),
            )  # fmt: skip
            for t in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                if "config" not in t.user_attrs:  # a process was killed before it had named it
                    self._study.tell(t.number, state=optuna.trial.TrialState.FAIL)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads and processes from adding trials and from deciding."""
        with self._thread:
            if self._depth == 0:
                locks.take(self._lock, wait=True)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    locks.release(self._lock)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Let what a database or its disk refuses be one line."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import DatabaseError, OperationalError

        try:
            yield
        except (StorageInternalError, OperationalError, OSError) as exc:
            raise FileError(
                f"{self.folder}: the records of the search cannot be read or written: {first_line(exc.__cause__ or exc)}. What was "
                f"recorded before is kept, and the same command goes on with it"
            ) from exc
        except (DatabaseError, json.JSONDecodeError) as exc:
            raise FileError(
                f"{self.folder}: the records of the search are damaged: {first_line(exc)}. "
                f"Remove the folder to begin the search again"
            ) from exc

    # -- trials

    def trials(self) -> list[Trial]:
        """Return all trials, in their order."""
        from optuna.trial import TrialState

        with self._told(), self._thread:
            found = self._study.get_trials(deepcopy=False)
        out = []
        for t in found:
            about = t.user_attrs
            if "config" in about:
                run = Run(about["config"], int(about["seed"]))
                failed = about.get("reason", "failed") if t.state == TrialState.FAIL else ""
                out.append(Trial(t.number, run, dict(t.intermediate_values), float(about.get("seconds", 0)), failed, t.state.is_finished()))
        return out

    def add(self, run: Run, choice: Mapping[str, str] | None = None, options: Mapping[str, list[str]] | None = None) -> Trial:
        """Add a trial of a candidate.

        Args:
            run: Config and seed.
            choice: What the candidate is: ``module``, ``where`` and ``start``; None for the baseline.
            options: All that each of them may be.
        """
        from optuna.trial import TrialState, create_trial

        held = create_trial(
            state=TrialState.RUNNING, params=dict(choice or {}), user_attrs={"seed": run.seed, "config": run.config},
            distributions=_distributions(options or {}) if choice else {},
        )  # fmt: skip
        with self.alone(), self._told():
            self._study.add_trial(held)  # in one step
            return Trial(self._study.get_trials(deepcopy=False)[-1].number, run)

    def _name(self, trial: Any, run: Run) -> None:
        trial.set_user_attr("seed", run.seed)
        trial.set_user_attr("config", run.config)  # last: a trial without one was never begun

    def suggest(self, options: Mapping[str, list[str]], name: Callable[[Mapping[str, str]], Run | None]) -> Trial | None:
        """Let Optuna's sampler choose a candidate by what the others have shown, and add its trial.

        Args:
            options: All that ``module``, ``where`` and ``start`` may be.
            name: Gives the run of a choice, or None for one that there is already, or that cannot be built.

        Returns:
            Its trial, or None where the sampler gives nothing new.
        """
        from optuna.trial import TrialState

        with self.alone(), self._told():
            for _ in range(20):
                trial = self._study.ask(_distributions(options))
                run = name({k: str(v) for k, v in trial.params.items()})
                if run is not None:
                    self._name(trial, run)
                    return Trial(trial.number, run)
                self._study.tell(trial, state=TrialState.FAIL)
        return None

    def report(self, trial: Trial, epochs: int, value: float, seconds: float) -> None:
        """Record a trial's figure at the end of a rung."""
        with self._told(), self._thread:
            held = self._of(trial)
            held.set_user_attr("seconds", round(trial.seconds + seconds, 1))
            held.report(value, epochs)  # last: with it the rung is done

    def close(self, trial: Trial, reason: str = "", *, pruned: bool = False) -> None:
        """Record that no rung is left for a trial: it has failed, was left behind, or is complete."""
        from optuna.trial import TrialState

        with self._told(), self._thread:
            if reason:
                self._of(trial).set_user_attr("reason", reason)
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            elif pruned or not trial.values:
                self._study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                self._study.tell(trial.number, trial.values[max(trial.values)], skip_if_finished=True)

    def _of(self, trial: Trial) -> Any:
        from optuna.trial import Trial as Held

        found = self._study.get_trials(deepcopy=False)[trial.number]
        return Held(self._study, found._trial_id)  # as `ask` makes it; no public function gives it for a number

    # -- decisions

    def decision(self, key: str) -> Any:
        """Return what was decided, or None where nothing was."""
        with self._told(), self._thread:
            return self._study.user_attrs.get(key)

    def decide(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what was decided; where nothing was, what `make` returns, which is kept."""
        with self.alone(), self._told():
            held = self._study.user_attrs.get(key)
            if held is None:
                held = make()
                self._study.set_user_attr(key, held)
            return held


def require() -> None:
    """Check that Optuna is there.

    Raises:
        YoloAttnError: It is not.
    """
    try:
        import optuna  # noqa: F401 # asked for here, before anything is written or trained
    except ImportError as exc:
        raise YoloAttnError(f"a search needs the package optuna: {exc}. pip install 'yolo_attn[search]'") from exc


def _distributions(options: Mapping[str, list[str]]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution

    return {k: CategoricalDistribution(v) for k, v in options.items()}


def without_password(storage: str) -> str:
    """Return a storage as a file may hold it.

    Raises:
        UsageError: It is neither ``sqlite``, ``journal`` nor a URL.
    """
    if storage in ("sqlite", "journal"):
        return storage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(storage).render_as_string(hide_password=True)
    except ArgumentError as exc:
        raise UsageError(f"{option('storage', storage)}: give sqlite, journal, or a URL as postgresql://HOST/DATABASE") from exc


def _name(folder: Path, storage: Any) -> str:
    """The study's name: in a database that other searches may share, one of this folder's own, kept in a file of it."""
    if not isinstance(storage, str) or storage in ("sqlite", "journal"):
        return NAME
    file = folder / "optuna.txt"
    if not file.is_file():
        write_text(file, f"{NAME} {folder.name} {secrets.token_hex(4)}\n")
    return read_text(file, FileError).strip()


def _storage(folder: Path, given: Any) -> Any:
    from optuna.storages import JournalStorage, RDBStorage

    if not isinstance(given, str):
        return given
    if given == "journal":
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        file = folder / JOURNAL
        lock = JournalFileOpenLock(str(file))
        _whole_lines(file, lock)
        return JournalStorage(JournalFileBackend(str(file), lock))
    if given == "sqlite":
        engine = {"connect_args": {"timeout": 120}}  # seconds to wait for another process
        return RDBStorage(f"sqlite:///{(folder / SQLITE).as_posix()}", engine_kwargs=engine)
    try:
        return RDBStorage(given)
    except ImportError as exc:  # the database's driver
        raise YoloAttnError(f"{option('storage', without_password(given))}: {first_line(exc)}") from exc


def _whole_lines(file: Path, lock: Any) -> None:
    """Take out the half line that a process killed while writing has left, behind which no other could be read.

    Args:
        file: Optuna's file, which may be missing.
        lock: Optuna's lock of it, which whoever writes holds.
    """
    if not file.is_file() or file.read_bytes()[-1:] in (b"", b"\n"):
        return
    lock.acquire()
    try:
        held = file.read_bytes()
        write_bytes(file, held[: held.rfind(b"\n") + 1])
    finally:
        lock.release()
