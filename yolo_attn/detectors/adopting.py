"""Convert a fork's model YAML to one that builds here, with the reason of each change.

Forks of YOLO write numbers into rows that their own parsers read. The kit infers these from the graph, so most changes
remove numbers; the others concern names. The host's parser tells the channels that arrive at each row, and finally the
host itself builds the result.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, HostError, UsageError, YoloAttnError, first_line
from ..hook import elsewhere, host_errors, seams
from ..hook.checkout import find_host
from ..hook.install import install, repair
from ..hook.resolve import named
from ..model_yaml import check, dialect, find, foreign, foreign_rows, misread
from ..model_yaml.foreign import Change
from ..model_yaml.graph import Graph
from ..model_yaml.load import WANTED
from ..model_yaml.reader import mapping_of
from ..model_yaml.text import Change as RowChange
from ..model_yaml.text import Layout
from ..model_yaml.widths import states_width
from ..registry import plugins, registry
from ..weights.start_from import model_class
from .classic import quiet

__all__ = ["Adoption", "adopt"]

HOSTS = ("ultralytics", "yolov5")


@dataclass
class Adoption:
    """The result of a conversion; unpacks as ``text, changes``.

    Args:
        text: The new YAML.
        changes: The changes, in the order of the file.
        unknown: Unknown module names, each with its rows.
        near: For each unknown name, similar names or advice.
        host: The host that builds the result; empty if none does.
        problem: Why no host builds it, in one line.
        notes: Probable mistakes that were not changed.
        parameters: Number of parameters of the built detector.
    """

    text: str
    changes: list[Change] = field(default_factory=list)
    unknown: dict[str, list[int]] = field(default_factory=dict)
    near: dict[str, str] = field(default_factory=dict)
    host: str = ""
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    parameters: int = 0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.text, self.changes))

    @property
    def whole(self) -> bool:
        """Whether every name is known and a host can build the result."""
        return not self.unknown and bool(self.host)


def adopt(cfg: str | os.PathLike[str], *, host: str | None = None, fix: bool = False) -> Adoption:
    """Convert a fork's model YAML to a form that builds here, keeping layout and comments.

    Args:
        cfg: A file, a model's name, or YAML text of several lines.
        host: The host to build it with: ``ultralytics``, ``yolov5`` (the package), or the folder of a YOLOv5 checkout;
            the first of these that can when absent.
        fix: Also shift the row numbers of a head that were not shifted for an inserted row.

    Returns:
        Text, changes, unknown names and the host that builds the result. Nothing is written.

    Raises:
        ConfigError: The file is not text, not YAML, or not a model.
        UsageError: No such host.
        HostError: The requested host cannot be imported.
    """
    text, name, folder, changes = _read(cfg)
    text, more = foreign.legible(text)
    changes += more
    text, more = foreign.header(text, name)
    changes += more
    if host is not None and host not in HOSTS and not Path(host).is_dir():
        raise UsageError(f"host is ultralytics, yolov5 or the folder of a YOLOv5 checkout, got {host!r}")
    best: Adoption | None = None
    problems = []
    for candidate in [host] if host is not None else HOSTS:
        try:
            parser = _parser(candidate)
        except HostError as exc:
            if host is not None:
                raise
            problems.append(str(exc))
            continue
        found = _on(candidate, parser, text, name, folder, fix)
        if best is None or found.whole:
            best, found.changes = found, [*changes, *found.changes]
        if found.whole or (found.unknown and not elsewhere.CLASSIC & found.unknown.keys()):  # no other host has them
            break
    if best is None:
        raise HostError("; ".join(problems))
    if not best.whole and problems:
        best.problem = "; ".join([best.problem, *problems])
    return best


def _read(cfg: str | os.PathLike[str]) -> tuple[str, str, Path | None, list[Change]]:
    """Return the text, its name in messages, its folder, and changes of its encoding."""
    if isinstance(cfg, str) and ("\n" in cfg or cfg.lstrip().startswith("{")):
        return cfg, "YAML text", None, []
    path = find.require(cfg)
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    text, changes = foreign.decode(data, str(path))
    return text, str(cfg), path.parent, changes


# -- one host ------------------------------------------------------------------------------------------------------


def _parser(host: str) -> Any:
    """Import the module with a host's parser.

    Raises:
        HostError: It cannot be imported.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here needs a network
    if host not in HOSTS:
        folder = str(find_host(host))
        sys.path[:] = [folder, *(p for p in sys.path if p != folder)]
    try:
        with quiet():
            if host == "ultralytics":
                found = importlib.import_module("ultralytics.nn.tasks")
            else:
                package = importlib.import_module("yolov5.models.yolo") if host == "yolov5" else None
                found = package or importlib.import_module("models.yolo")
    except Exception as exc:  # such as a missing package, or an incomplete checkout
        raise HostError(f"host {host} cannot be imported: {type(exc).__name__}: {first_line(exc)}") from exc
    install(strict=True)
    repair()
    return found


def _on(host: str, parser: Any, text: str, name: str, folder: Path | None, fix: bool) -> Adoption:
    """Convert for one host."""
    d = _model(text, name, folder)
    theirs = {k for k, v in vars(parser).items() if isinstance(v, type)} & (elsewhere.ULTRALYTICS | elsewhere.CLASSIC)
    theirs |= {
        k for k, v in vars(parser).items() if isinstance(v, type) and v.__module__.startswith(parser.__package__)
    }
    rows: list[Any] = [*d["backbone"], *d["head"]]
    reasons: dict[int, list[str]] = {}
    for i, row in enumerate(rows):
        rows[i], why = foreign_rows.tidy(row, d, theirs)
        if why:
            reasons[i] = why
    check.validate(_with(d, rows), name)
    text, early = _activate(parser, text, d, rows, reasons)
    d = _with(_model(text, name, folder) if early else d, rows)
    notes = []
    for i, meant, sentence in misread.found(d):
        if fix and meant is not None:
            head, old = rows[-1], rows[-1][0]
            head[0] = (
                [meant if x == i or x + len(rows) - 1 == i else x for x in old] if isinstance(old, list) else meant
            )
            reasons.setdefault(len(rows) - 1, []).append(sentence)
        else:
            notes.append(sentence)
    d = _with(d, rows)
    reader, stopped = _watch(host, parser, d, name)
    unknown: dict[str, list[int]] = {}
    for i, module in enumerate(r[2] for r in rows):
        if not _known(module, d, theirs):
            unknown.setdefault(module, []).append(i)
    for i, (module, args, why) in reader.settled(_sure(d, {i for at in unknown.values() for i in at})).items():
        rows[i] = [*rows[i][:2], module, args]
        reasons.setdefault(i, []).extend(why)
    d = _with(d, rows)
    new, changes = _render(text, name, rows, reasons)
    found = Adoption(new, [*early, *changes], unknown, notes=notes)
    known = [*registry.known_names(), *(d.get("register") or {}), *sorted(theirs), "nn.Upsample"]
    found.near = {n: elsewhere.advice(n, known, parser).strip() for n in unknown}
    if unknown:
        found.problem = f"{_count(len(unknown), 'unknown name')} in {_count(sum(map(len, unknown.values())), 'row')}"
        return found
    found.problem = _silent(host, d) or stopped
    if not found.problem:
        found.host, found.problem, found.parameters = _built(host, parser, d, name)
    return found


def _model(text: str, name: str, folder: Path | None) -> dict[str, Any]:
    d = mapping_of(text, name, ConfigError, WANTED)
    for part in ("backbone", "head"):
        if not isinstance(d.get(part), list):
            raise ConfigError(f"{name}: has no list '{part}'. {WANTED}")
    letter = find.split_scale(Path(name).stem)[1]
    scales = d.get("scales")
    if isinstance(scales, dict) and scales and not d.get("scale"):
        d["scale"] = letter if letter in scales else str(next(iter(scales)))
    d["yaml_file"] = name
    if d.get("register") and folder is not None:
        plugins.load_register(d, folder, name)
    return d


def _known(module: str, d: dict[str, Any], theirs: set[str]) -> bool:
    """Whether the host or the registry has a module of this name."""
    from torch import nn

    if module.startswith("nn."):
        return hasattr(nn, module[3:])
    return module in theirs or module.startswith("torchvision.ops.") or named(module, d) is not None


def _with(d: dict[str, Any], rows: list[Any]) -> dict[str, Any]:
    cut = len(d["backbone"])
    return {**d, "backbone": deepcopy(rows[:cut]), "head": deepcopy(rows[cut:])}


def _for(host: str, d: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the model in the form that a host's parser takes."""
    if host == "ultralytics":
        return dialect.to_ultralytics(deepcopy(d), name)
    return dialect.to_classic(d, str(d.get("scale") or ""), name)


def _watch(host: str, parser: Any, d: dict[str, Any], name: str) -> tuple[foreign_rows.Numbers, str]:
    """Let the host parse the model; return the numbers seen at its rows, and the error, if any."""
    reader = foreign_rows.Numbers(d)
    channels = d.get("channels", 3)
    try:
        with host_errors.told_by_row(name), seams.watched(reader), seams.reading(name), quiet(), _weightless():
            made = _for(host, d, name)
            parser.parse_model(made, channels, verbose=False) if host == "ultralytics" else parser.parse_model(
                made, [channels]
            )
    except YoloAttnError as exc:
        return reader, str(exc)
    except Exception as exc:  # a host raises whatever a wrong model leads to
        return reader, f"{type(exc).__name__}: {first_line(exc)}"
    return reader, ""


def _built(host: str, parser: Any, d: dict[str, Any], name: str) -> tuple[str, str, int]:
    """Build the model as the host would; return the host, the problem, and the number of parameters."""
    try:
        with host_errors.told_by_row(name), quiet():
            made = _for(host, d, name)
            model = model_class(made, name)[0](made, verbose=False) if host == "ultralytics" else parser.Model(made)
    except YoloAttnError as exc:
        return "", str(exc), 0
    except Exception as exc:  # as above
        return "", f"{type(exc).__name__}: {first_line(exc)}", 0
    return host, "", sum(p.numel() for p in model.parameters())


def _activate(
    parser: Any, text: str, d: dict[str, Any], rows: list[Any], reasons: dict[int, list[str]]
) -> tuple[str, list[Change]]:
    """Move an activation that every row repeats to the header: a Conv with dilation takes the sixth argument for it."""
    if "d" not in inspect.signature(parser.Conv).parameters or d.get("activation"):  # YOLOv5 up to v6.2
        return text, []
    activation, where = foreign_rows.activation(rows)
    if not activation:
        return text, []
    for i in where:
        rows[i] = [*rows[i][:3], rows[i][3][:3]]
        reasons.setdefault(i, []).append("the activation stands in the header, where this host reads it")
    return foreign.with_key(text, "activation", activation, "every convolution names it")


def _silent(host: str, d: dict[str, Any]) -> str:
    """Return a problem with rows that ultralytics would build differently than they say, or an empty string."""
    for i, (_, _, module, args) in enumerate([*d["backbone"], *d["head"]]):
        for a in args:
            if host == "ultralytics" and isinstance(a, str) and a.startswith(("nn.", "torch.nn.")) and "(" in a:
                return (
                    f"row {i}: {module} with {a}: the ultralytics host evaluates no argument; one for all stands in the "
                    f"header, 'activation: {a}'"
                )
    return ""


@contextlib.contextmanager
def _weightless() -> Iterator[None]:
    """Use torch's meta device where it is available as a context: what is parsed here is never run."""
    import torch

    with torch.device("meta") if hasattr(torch.device, "__enter__") else contextlib.nullcontext():
        yield


def _sure(d: dict[str, Any], unknown: set[int]) -> set[int]:
    """Return the rows whose input channels do not depend on an unknown row."""
    nodes = Graph.of(d).nodes
    open_: set[Any] = set()
    sure = set()
    for i, node in enumerate(nodes):
        if any(e.target in open_ for e in node.edges):
            if not states_width(node.module, named(node.module, d)):
                open_.add(node)
            continue
        sure.add(i)
        if i in unknown and not states_width(node.module, None):  # of the other host it may be
            open_.add(node)
    return sure


def _render(text: str, name: str, rows: list[Any], reasons: dict[int, list[str]]) -> tuple[str, list[Change]]:
    """Write the rows into the text; return it with the list of changed rows."""
    if not reasons:
        return text, []
    old = Layout(text, name)
    new = old.apply([RowChange(i, i, row) for i, row in enumerate(rows)], [], renumber=False)
    after = Layout(new, name)
    cut = sum(r.section is old.rows[0].section for r in old.rows)
    changes = []
    for i in sorted(reasons):
        place = f"row {i} ({'backbone' if i < cut else 'head'})"
        changes.append(Change(place, old.shown(i), after.shown(i), "; ".join(dict.fromkeys(reasons[i]))))
    return new, changes


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def tally(adoptions: list[Adoption]) -> Counter[str]:
    """Count the rows of each unknown name over several files."""
    return Counter({n: sum(len(a.unknown.get(n, ())) for a in adoptions) for a in adoptions for n in a.unknown})
