"""The configs of a study: named by YAMLs, or made as a grid of attention, places and starts; checked before all else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UsageError, YoloAttnError
from ..files import read_text
from ..model_yaml import find, load, placement
from ..model_yaml.start import STARTS, check_start

__all__ = ["Candidate", "from_grid", "from_names"]


@dataclass(frozen=True)
class Candidate:
    """One config of a study.

    Args:
        name: What tables call it, and its runs' folders begin with.
        text: Its YAML.
        source: The file to train from where the YAML names files of its own under ``register:``, which a copy of it
            elsewhere would not reach; else empty.
        start: How attention begins, ``identity`` or ``paper``; empty for what the YAML and the training say.
        stem: Of the file that it is kept in; its letter is the scale.
    """

    name: str
    text: str
    source: str
    start: str
    stem: str

    @property
    def sha256(self) -> str:
        """Hash of the YAML."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def from_names(names: Sequence[str], starts: Sequence[str] = ()) -> list[Candidate]:
    """Return the configs that are named, `YAML` or `YAML:START`, the first one the baseline.

    Args:
        names: At least two.
        starts: All but the baseline are tried with each of these.

    Raises:
        UsageError: Fewer than two, or another word for a start.
        ConfigError: One or several do not exist or are no models; all of them are named.
    """
    if len(names) < 2:
        raise UsageError("comparing takes at least two configs, the first of which is the baseline")
    _check_starts(starts)
    problems: list[str] = []
    found: list[Candidate] = []
    for k, given in enumerate(names):
        name, colon, start = given.rpartition(":")
        if not colon or start not in STARTS:
            name, start = given, ""
        try:
            for each in [start] if start or not starts or k == 0 else starts:
                found.append(_read(name, each))
        except ConfigError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigError("; ".join(problems) if len(problems) > 1 else problems[0])
    return _distinct(found)


def from_grid(
    base: str, attention: Sequence[str], where: Sequence[str] = (), starts: Sequence[str] = ()
) -> list[Candidate]:
    """Return a base and every combination of attention, place and start put into it.

    Args:
        base: The baseline, a model's name or YAML.
        attention: Names of modules.
        where: Places; ``backbone+neck`` is both at once. ``neck`` when empty.
        starts: ``identity``, ``paper`` or both; what the training takes by default when empty.

    Raises:
        YoloAttnError: As :func:`yolo_attn.insert`, for any of them.
    """
    if not attention:
        raise UsageError("say which attention: --attention NAME,NAME ('yolo-attn list' shows them)")
    _check_starts(starts)
    first = _read(base, "")
    found, problems = [first], []
    for module in attention:
        for place in where or ["neck"]:
            try:
                text = placement.insert(base, module, where=place.split("+"))
            except YoloAttnError as exc:
                problems.append(str(exc))
                continue
            stem = "_".join([Path(base).stem, module.rpartition(":")[2], *place.split("+")])
            for start in starts or [""]:
                found.append(_made(stem, text, "", start))
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    return _distinct(found)


def _check_starts(starts: Sequence[str]) -> None:
    for start in starts:
        check_start(start)


def _read(name: str, start: str) -> Candidate:
    path = find.require(name)
    d = load.load_ultralytics(name, path)
    text = read_text(path, ConfigError)
    own_files = any(".py" in str(v) for v in (d.get("register") or {}).values())
    stem = Path(os.path.expanduser(name)).stem
    if not find.split_scale(stem)[1] and d.get("scale") and "\nscale:" not in text:
        text = f"scale: {d['scale']}\n{text}"
    return _made(stem, text, str(Path(os.path.expanduser(name)).resolve()) if own_files else "", start)


def _made(stem: str, text: str, source: str, start: str) -> Candidate:
    name = f"{stem}_{start}" if start else stem
    if start and not source:
        text, _ = placement.set_start(text, start)
    return Candidate(name, text, source, start, name)


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """Number what is named twice: two names of one config are a fair question."""
    taken: dict[str, int] = {}
    out = []
    for c in found:
        key = c.name.lower()  # some systems take A and a for one
        taken[key] = taken.get(key, 0) + 1
        mark = f"_{taken[key]}" if taken[key] > 1 else ""
        out.append(Candidate(c.name + mark, c.text, c.source, c.start, c.stem + mark))
    return out


def build(candidate: Candidate, folder: Path) -> Any:
    """Build a config as the ultralytics host would, so that a wrong row is known before anything trains.

    Raises:
        ConfigError: It cannot be built; names file and row.
    """
    from copy import deepcopy

    from ..hook.host_errors import told_by_row
    from ..weights.start_from import model_class

    path = Path(candidate.source) if candidate.source else folder / f"{candidate.stem}.yaml"
    with told_by_row(candidate.name):
        d = load.load_ultralytics(candidate.stem, path)
        return model_class(d, candidate.name)[0](deepcopy(d), verbose=False)
