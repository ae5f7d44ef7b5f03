"""What both forms of classic YOLOv5 share: a checkout (``models.yolo``) and the ``yolov5`` package.

The patches:

- ``models.yolo.parse_model`` evaluates module names among its own globals and has no registry.
- ``models.yolo.Model.__init__`` opens the model file itself. Patched, it reads the kit's YAMLs, the dialect with
  ``scales`` and ``register:``, wherever a model is built without a command line.
- ``models.yolo.Model.fuse`` (a method of ``BaseModel`` in newer versions) folds batch normalization in the host's own
  convolution class only; the kit's blocks fold theirs after it.
- ``models.yolo.Model.info`` counts operations on an image of one stride and multiplies, which is wrong for the layers of
  a gate: they see one pixel at any size.
- ``utils.general.check_file`` resolves ``--cfg`` and knows only the checkout's folders.
- ``intersect_dicts`` (of ``utils.general``, in v6.0 of ``utils.torch_utils``, in newer commits of ultralytics) copies
  weights by name, and an inserted row renames every layer after it. With attention, weights are matched by logical layer
  instead. It takes two state dicts; ``models.yolo.Model.state_dict`` records which model each belongs to.
- ``utils.loss.ComputeLoss.__init__`` is called by the training loop of every version, in every process, once the model,
  the optimizer and the first epoch exist. A model's ``schedule`` (freezing, learning rate of attention) begins there.

Repairs, for the launchers only:

- ``utils.general.check_font`` and ``user_config_dir`` (v6.0 downloads its font where the others check for it) fail
  without a network, some on import; a font of matplotlib replaces it then.
- ``utils.general.check_online`` waits ten seconds where packets are dropped; ``YOLO_OFFLINE`` skips it.
- ``utils.plots.check_pil_font`` and a module's own ``np``: names that NumPy and Pillow have removed since
  (:mod:`.yolov5_dated`).

The host's own layer classes are also declared safe for ``torch.load(weights_only=True)`` (:mod:`.safe_classes`): torch
2.6 made this the default, and checkouts up to v7.0 cannot load their own checkpoints with it.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from .interface import Host, Kit, Patch
from .safe_classes import declare
from .yolov5_dated import font_with_size, supply

__all__ = ["SUPPORTED", "fuse", "hand_edit", "intersect_dicts", "is_model", "is_yolov5", "make", "state_dict"]

SUPPORTED = "YOLOv5 v6.0, v6.1, v6.2, v7.0 and the newest commit (2026-08), the yolov5 package 7.0.14"

REPAIRED = ("utils.general", "utils.metrics", "utils.datasets", "utils.dataloaders", "utils.loss", "models.common")

# What tells YOLOv5's modules from others of the same name.
PARSER_HAS = ("Model", "Detect", "Concat", "Conv", "make_divisible", "check_anchor_order")
GENERAL_HAS = ("check_yaml", "make_divisible", "non_max_suppression", "strip_optimizer")
# Every module that the parser of a YOLOv5 release names.
STOCK = """
    Conv GhostConv Bottleneck GhostBottleneck SPP SPPF DWConv MixConv2d Focus CrossConv BottleneckCSP C3 C3TR C3SPP
    C3Ghost C3x BatchNorm2d Concat Detect Segment Contract Expand ConvTranspose2d DWConvTranspose2d Classify
"""


def make(
    name: str,
    prefix: str,
    belongs: Callable[[ModuleType], bool],
    version: Callable[[ModuleType], str],
) -> Host:
    """Return the host whose modules are `prefix` + ``models.yolo`` and so on.

    Args:
        name: As for :class:`Host`; so are `prefix` and `version`.
        prefix: See there.
        belongs: ``f(module)``, whether the name of a module is one of this host's.
        version: See there.
    """
    yolo, general, tools, plots = (
        f"{prefix}{n}" for n in ("models.yolo", "utils.general", "utils.torch_utils", "utils.plots")
    )
    by_layer, schedule = "pretrained weights by logical layer", "freezing and learning rate: `schedule`"
    return Host(
        name=name,
        prefix=prefix,
        patches=(
            Patch(yolo, "parse_model", "registered names in YAML rows", takes="d ch", by_name=True),
            Patch(yolo, "Model.__init__", "the kit's YAMLs, the dialect with `scales`, `register:`", _init, "self cfg"),
            Patch(yolo, "Model.fuse", "batch normalization folded in the kit's blocks too", fuse, "self"),
            Patch(yolo, "Model.info", "`info()`: a gate's operations at the real size", _info, "self verbose img_size"),
            Patch(yolo, "Model.state_dict", "which model a state dict belongs to", state_dict, "self"),
            Patch(general, "check_file", "the kit's YAMLs under `--cfg`", _check_file, "file", True),
            Patch(general, "intersect_dicts", by_layer, intersect_dicts, "da db", True, _in("torch_utils")),
            Patch(tools, "intersect_dicts", by_layer, intersect_dicts, "da db", True, _in("general")),
            Patch(f"{prefix}utils.loss", "ComputeLoss.__init__", schedule, _loss, "self model"),
            Patch(f"{prefix}utils.segment.loss", "ComputeLoss.__init__", schedule, _loss, "self model",
                  unless=lambda root: not (root / "utils" / "segment").is_dir()),
        ),
        recognise=lambda module: is_yolov5(module) and belongs(module),
        version=version,
        supported=lambda: SUPPORTED,
        prepare=declare,
        explain=lambda module: _explain(module),
        repairs=(
            Patch(general, "check_font", "no network: a font that stands in", _check_font, "font", True, _old),
            Patch(general, "user_config_dir", "no network, v6.0: the same", _user_config_dir, "", True, _old),
            Patch(general, "check_online", "`YOLO_OFFLINE`", _check_online, "", True, _old),
            Patch(plots, "check_pil_font", "names dropped by Pillow", font_with_size, "", False, _old),
            Patch(plots, "check_font", "v6.0: the same", font_with_size, "", False, _old),
        ),
        repair=supply,
        repaired=tuple(f"{prefix}{n}" for n in REPAIRED),
    )  # fmt: skip


def _in(home: str) -> Callable[[Path], bool]:
    """Whether ``utils`` defines `intersect_dicts` in this other file."""
    return lambda root: "intersect_dicts" in _read(root / "utils" / f"{home}.py")


def _old(root: Path) -> bool:
    """A version without the function needs no repair of it."""
    return True


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def is_yolov5(module: ModuleType) -> bool:
    """Whether a module is YOLOv5's, or that of a fork which kept the shape of ``models.yolo`` and ``utils.general``."""
    name = module.__name__
    if name.endswith("utils.general"):
        return _has(module, GENERAL_HAS)
    if not name.endswith("models.yolo"):
        file = Path(module.__file__ or "").resolve()
        root = file.parents[name[name.find("utils.") if "utils." in name else name.find("models.") :].count(".")]
        return all((root / n).is_file() for n in ("models/yolo.py", "utils/general.py", "train.py"))
    if not _has(module, PARSER_HAS):
        return False
    if not hasattr(module, "parse_model"):  # its parser has another name: recognised, so that the error is reported
        return True
    code = getattr(module.parse_model, "__code__", None)
    return (code is not None and code.co_varnames[:2] == ("d", "ch")) or _defines(module)


def _has(module: ModuleType, names: tuple[str, ...]) -> bool:
    return all(callable(getattr(module, n, None)) for n in names)


def _defines(module: ModuleType) -> bool:
    """Whether the file defines the parser, where a wrapper without signature has replaced it."""
    return any(isinstance(n, ast.FunctionDef) and n.name == "parse_model" for n in _tree(module).body)


def _init(kit: Kit, original: Callable[..., None], self: Any, *given: Any, **more: Any) -> None:
    if "cfg" in more:
        given, more = (more["cfg"], *given), {k: v for k, v in more.items() if k != "cfg"}
    if not given:  # the host's default model
        return original(self, **more)
    with kit.building(given[0], self) as model:
        return original(self, model, *given[1:], **more)


def fuse(kit: Kit, original: Callable[..., Any], self: Any, *rest: Any, **more: Any) -> Any:
    """Fuse as the host does, then fold batch normalization in the kit's blocks."""
    result = original(self, *rest, **more)
    kit.fold(self)
    return result


def _info(kit: Kit, original: Callable[..., Any], self: Any, verbose: bool = False, img_size: Any = 640) -> Any:
    """Let the host count at the real image size. With `verbose` it lists the weights, so the copy keeps them."""
    twin = kit.at_full_size(self, img_size, weights=bool(verbose))
    return original(self if twin is None else twin, verbose, img_size)


def state_dict(kit: Kit, original: Callable[..., Any], self: Any, *rest: Any, **more: Any) -> Any:
    """Record which model the state dict belongs to."""
    state = original(self, *rest, **more)
    kit.note(self, state)
    return state


def intersect_dicts(kit: Kit, original: Callable[..., Any], da: Any, db: Any, exclude: Any = ()) -> Any:
    """Match the tensors of `da` to the layers of `db`."""
    return kit.match_state(original, da, db, exclude)


def _loss(kit: Kit, original: Callable[..., None], self: Any, model: Any, *rest: Any, **more: Any) -> None:
    original(self, model, *rest, **more)
    kit.before_loop(model)


def _check_file(kit: Kit, original: Callable[..., Any], file: Any, *rest: Any, **more: Any) -> Any:
    text = str(file)
    if Path(text).suffix not in (".yaml", ".yml", "") or not text or "://" in text:
        return original(file, *rest, **more)
    try:
        found = original(file, *rest, **more)
    except (AssertionError, FileNotFoundError) as exc:
        mine = kit.locate(text)
        if mine is None:
            unknown = kit.unknown_model(text)
            if unknown is None:
                raise
            raise unknown from exc
        found = mine
    if isinstance(found, (str, os.PathLike)) and is_model(Path(found)):
        classic = kit.classic_file(text, Path(found))
        return found if classic == Path(found) else str(classic)
    return found


def is_model(path: Path) -> bool:
    """Whether a file is a model YAML and not one of a data set or of hyperparameters."""
    if path.suffix not in (".yaml", ".yml"):
        return False
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return b"backbone" in text and b"head" in text


def _offline() -> bool:
    return os.environ.get("YOLO_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}


def _check_online(kit: Kit, original: Callable[[], bool]) -> bool:
    return False if _offline() else original()


def _check_font(kit: Kit, original: Callable[..., Any], font: Any, *rest: Any, **more: Any) -> Any:
    folder = getattr(original, "__globals__", {}).get("CONFIG_DIR")
    if folder is None or Path(font).exists() or (Path(folder) / Path(font).name).exists():
        return original(font, *rest, **more)
    if not _offline():
        with _impatient(), contextlib.suppress(OSError):
            return original(font, *rest, **more)
    return _stand_in(kit, Path(folder) / Path(font).name)


def _user_config_dir(kit: Kit, original: Callable[..., Path], *given: Any, **more: Any) -> Path:
    folder = original(*given, **more)
    late = "check_font" not in getattr(original, "__globals__", {})  # v6.0: utils.plots downloads on import
    font = Path(folder) / "Arial.ttf"
    if late and not font.exists() and (_offline() or not _reachable()):
        _stand_in(kit, font)
    return folder


def _reachable() -> bool:
    try:
        socket.create_connection(("ultralytics.com", 443), timeout=3).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _impatient() -> Any:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(3.0)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _stand_in(kit: Kit, target: Path) -> None:
    import matplotlib

    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft)
        os.replace(draft, target)
    except OSError as exc:
        kit.announce("no font for labels: %s", exc)
        return
    kit.announce("%s cannot be downloaded: DejaVu Sans is used instead. Delete %s to retry.", target.name, target)


def _tree(module: ModuleType) -> ast.Module:
    try:
        return ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _named(module: ModuleType) -> dict[str, int]:
    """Modules that the parser's branches name and no YOLOv5 release does, with the line."""
    found: dict[str, int] = {}
    for definition in _tree(module).body:
        if not isinstance(definition, ast.FunctionDef) or definition.name != "parse_model":
            continue
        for node in ast.walk(definition):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == "m":
                for leaf in (n for c in node.comparators for n in ast.walk(c)):
                    name = leaf.attr if isinstance(leaf, ast.Attribute) else getattr(leaf, "id", None)
                    if name and name not in STOCK.split() and name != "nn":
                        found.setdefault(name, node.lineno)
    return found


def _explain(module: ModuleType) -> str:
    named = _named(module)
    if not named:
        return ""
    branches = ", ".join(f"{name} (line {line})" for name, line in named.items())
    return (
        f"This parser was edited by hand: it names {branches}, which no YOLOv5 release does. With the kit the edit is "
        f"not needed: 'git diff models/yolo.py' shows it, 'git checkout models/yolo.py' undoes it"
    )


def hand_edit(cls: type) -> str:
    """Return where a YOLOv5 checkout defines and names a class that no release has; empty if it does not."""
    owner = sys.modules.get(cls.__module__)
    package = cls.__module__.rpartition(".")[0]
    parser = sys.modules.get(f"{package}.yolo")
    if owner is None or parser is None or not parser.__name__.endswith("models.yolo") or not is_yolov5(parser):
        return ""
    if cls.__name__ in STOCK.split():
        return ""
    line = next((n.lineno for n in _tree(owner).body if isinstance(n, ast.ClassDef) and n.name == cls.__name__), None)
    edits = [f"{owner.__file__}, line {line}, defines it"] if line else []
    if cls.__name__ in _named(parser):
        edits.append(f"{parser.__file__}, line {_named(parser)[cls.__name__]}, builds it")
    if not edits:
        return ""
    return f"The checkout was edited by hand: {' and '.join(edits)}. With the kit that edit can be removed. "
