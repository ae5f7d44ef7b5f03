"""What a study does, as `study.yaml` in its folder says it: configs, data, budget, seeds. A plan is never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import FileError, UsageError
from ..files import expand, read_source, write_text
from ..model_yaml.reader import read_mapping
from .candidates import Candidate

__all__ = ["FILE", "Plan", "hash_data", "hash_file", "settle"]

FILE = "study.yaml"
FORM = 1
HEAD = "# A study of yolo_attn. The same command goes on with it; another plan needs another folder.\n"


@dataclass(frozen=True)
class Run:
    """One training: a config and a seed.

    Args:
        config: The config's name.
        seed: The seed.
    """

    config: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder, below ``runs``."""
        return f"{self.config}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a study finds; where and how many at a time it runs does not.

    Args:
        host: ``ultralytics``, ``yolov5`` or the folder of a checkout.
        data: The data set's YAML; empty for the embedded one.
        data_sha256: Hash of it, its labels and the names and sizes of its images.
        weights: What all begin from; empty for from scratch.
        weights_sha256: Hash of that file, where it is here.
        epochs: Of each run.
        seeds: Each config is trained once with each.
        arguments: Further arguments of the host, by name.
        configs: For each config its ``sha256``, ``start`` and ``source``, the baseline first.
        plugins: Files of attention that is loaded first.
    """

    host: str
    data: str
    data_sha256: str
    weights: str
    weights_sha256: str
    epochs: int
    seeds: tuple[int, ...]
    arguments: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, str]]
    plugins: tuple[str, ...] = field(default=())

    @property
    def baseline(self) -> str:
        """The first config."""
        return next(iter(self.configs))

    @property
    def runs(self) -> list[Run]:
        """Seed by seed, so that what is there after an interruption is as balanced as can be."""
        return [Run(c, s) for s in self.seeds for c in self.configs]

    def as_dict(self) -> dict[str, Any]:
        """Return what `study.yaml` holds."""
        d = asdict(self)
        d.update(seeds=list(self.seeds), plugins=list(self.plugins), arguments=dict(self.arguments))
        d["configs"] = {n: dict(c) for n, c in self.configs.items()}
        return {"form": FORM, "baseline": self.baseline, **d}


def of(candidates: Sequence[Candidate], **rest: Any) -> Plan:
    """Return the plan of these configs."""
    configs = {c.name: {"sha256": c.sha256, "start": c.start, "source": c.source} for c in candidates}
    return Plan(configs=configs, **rest)


def settle(
    folder: Path, plan: Plan, candidates: Sequence[Candidate], *, file: str = FILE, more: Mapping[str, Any] | None = None
) -> None:
    """Write a plan and its configs into an empty folder, or check that the folder's plan is this one.

    Args:
        folder: Of the study.
        plan: The plan.
        candidates: Its configs.
        file: Where it is written; a search has a file of another name.
        more: What else decides.

    Raises:
        FileError: The folder holds another plan, or something that is no study; it is left as it is.
    """
    wanted = {**plan.as_dict(), **(more or {})}
    there = read(folder, file)
    if there is not None:
        differences = _differences(there, wanted)
        if differences:
            raise FileError(
                f"{folder} is a study with another plan: {'; '.join(differences)}. Give the command that it was made "
                f"with, or another folder: -o FOLDER"
            )
        return
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file. Choose a new folder for the study: -o FOLDER")
    ours = {"configs", file}
    if folder.is_dir() and {p.name for p in folder.iterdir() if not p.name.startswith(".")} - ours:
        raise FileError(f"{folder} holds files and no {file}. Choose a new or an empty folder for the study: -o FOLDER")
    try:
        (folder / "configs").mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileError(f"{folder}: cannot be written: {exc.strerror or exc}") from exc
    for c in candidates:
        write_text(folder / "configs" / f"{c.stem}.yaml", c.text)
    text = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)
    write_text(folder / file, HEAD + text)  # last: what has a plan has its configs


def read(folder: Path, name: str = FILE) -> dict[str, Any] | None:
    """Return what a folder's `study.yaml`, or the file of that name, holds, or None where there is none.

    Raises:
        FileError: It is no plan.
    """
    file = folder / name
    if not file.is_file():
        return None
    d = read_mapping(file, FileError, "It holds the plan of a study.")
    if d.get("form") != FORM:
        raise FileError(f"{file}: is of form {d.get('form')!r}, and this version of the kit reads form {FORM}.")
    return d


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What a person would want to know, the words before the hashes."""
    out = []
    for key in dict.fromkeys([*wanted, *there]):
        a, b = there.get(key), wanted.get(key)
        if a == b:
            continue
        if key == "configs" and isinstance(a, dict) and isinstance(b, dict):
            out += [f"config {n} is not in it" for n in b if n not in a]
            out += [f"config {n} is in it and not in the command" for n in a if n not in b]
            out += [f"config {n} has changed" for n in b if n in a and a[n] != b[n]]
            if list(a) != list(b) and set(a) == set(b):
                out.append(f"its configs stand in another order, {', '.join(a)}")
        elif key == "arguments" and isinstance(a, dict) and isinstance(b, dict):
            out += [f"{k} is {a.get(k)!r} there and {b.get(k)!r} here" for k in {**a, **b} if a.get(k) != b.get(k)]
        elif key.endswith("_sha256"):
            if there.get(key[:-7]) == wanted.get(key[:-7]):
                out.append(f"the files of {key[:-7]} have changed")
        elif key != "baseline":
            out.append(f"{key} is {a!r} there and {b!r} here")
    return out


def hash_file(name: str) -> str:
    """Return the SHA-256 of a file, or nothing where it is not here, as with published weights."""
    path = expand(name)
    if not name or not path.is_file():
        return ""
    h = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def hash_data(name: str) -> str:
    """Return a hash of a data set: its YAML, its labels, and its images' names and sizes; of the YAML alone where the
    host has yet to fetch the rest, nothing where the host knows the YAML.
    """
    from ..evaluation.dataset import image_files, label_file, places_of, root_of

    path = expand(name)
    if not path.is_file():
        return ""
    d = read_mapping(path, FileError, "It is a data set's YAML.")
    root = root_of(d, path)
    h = hashlib.sha256(yaml.safe_dump({k: v for k, v in d.items() if k != "path"}).encode())
    for key in ("train", "val", "test"):
        for folder in places_of(d[key], root) if d.get(key) else []:
            for image in image_files(folder) if folder.exists() else []:
                labels = label_file(image)
                size = image.stat().st_size if image.is_file() else 0
                h.update(f"{key} {image.name} {size}\n".encode("utf-8", "surrogateescape"))
                h.update(read_source(labels).encode() if labels.is_file() else b"")
    return h.hexdigest()


def check_seeds(count: int) -> tuple[int, ...]:
    """Return the seeds 0 to `count` - 1.

    Raises:
        UsageError: Fewer than one.
    """
    if count < 1:
        raise UsageError(f"--seeds is at least 1, got {count}")
    return tuple(range(count))
