"""What :func:`~.placement.insert` and its like are given, checked: the model, places, the module and its options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from ..errors import ConfigError, PluginError, UsageError
from ..files import read_text
from ..hook.resolve import Named, named
from ..log import announce
from ..registry import plugins, registry
from ..registry.registry import PREFIX
from ..words import option
from . import check, find, load
from .reader import mapping_of
from .start import check_start

__all__ = ["Config", "module_options", "read_model", "several"]

Config = Union[str, "os.PathLike[str]", dict]


def read_model(cfg: Config) -> tuple[str | None, dict[str, Any], str, str]:
    """Return the text, the model dictionary, its name for messages, and the scale letter that the name asks for."""
    if isinstance(cfg, dict):
        name = str(cfg.get("yaml_file") or "model dictionary")
        check.validate(cfg, name)
        return None, cfg, name, ""
    if not isinstance(cfg, (str, os.PathLike)) or str(cfg).endswith(".pt"):
        kind = f"{cfg} is a checkpoint" if isinstance(cfg, (str, os.PathLike)) else f"a {type(cfg).__name__} was given"
        raise UsageError(
            f"{kind}; insert and remove change a model's YAML, by name, path, text or dictionary. For a model that is "
            f"built: yolo_attn.attach(detector, 'ECA', where='neck')."
        )
    letter = ""
    if isinstance(cfg, str) and ("\n" in cfg or cfg.lstrip().startswith("{")):
        text, name = cfg, "YAML text"
        d = mapping_of(text, name, ConfigError, load.WANTED)
    else:
        path = find.require(cfg)
        d, name = load.read(path), str(cfg)
        text = read_text(path, ConfigError, mark=True)
        letter = find.split_scale(Path(cfg).stem)[1]
        _load_own(d, path, name)
    check.validate(d, name)
    if not d["head"] or len(d["backbone"]) + len(d["head"]) < 2:
        raise ConfigError(f"{name}: 'head' has no rows; its last row is the model's output, such as Detect.")
    return text, d, name, letter


def _load_own(d: dict[str, Any], path: Path, name: str) -> None:
    """Load what a file names under `register:`; without its code, the file can be edited all the same."""
    try:
        plugins.load_register(d, path.parent, name)
    except PluginError as exc:
        announce("%s; options are not tried", exc)


def several(name: str, given: Any, types: tuple[type, ...]) -> list[Any]:
    """Return one value or several as a list, each once.

    Raises:
        UsageError: Something else than that.
    """
    several = given if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else [given]
    values = [] if given is None else list(dict.fromkeys(several))
    for value in values:
        if isinstance(value, bool) or not isinstance(value, types):
            wanted = "module types or row numbers" if int in types else "places, such as 'neck'"
            raise UsageError(f"{option(name)} takes {wanted}, got {value!r}")
    return values


def module_options(module: str, d: dict[str, Any], start: str | None, args: Any) -> tuple[Named, list[Any]]:
    """Check the module and its options; return what it is and the row's fourth column."""
    if args is not None and (isinstance(args, str) or not isinstance(args, (Mapping, Sequence))):
        raise UsageError(f"{option('args')} takes the module's options by name, e.g. reduction 8, got {args!r}")
    options = dict(args) if isinstance(args, Mapping) else {}
    positional = [] if isinstance(args, Mapping) else list(args or ())
    if positional and isinstance(positional[-1], Mapping):
        options = {**positional.pop(), **options}
    if start is not None:
        check_start(start)
        options["start"] = start
    what = named(module, d)
    if what is None:
        entry = registry.get_entry(module)
        raise UsageError(
            f"a row '{module}' is the host's own module of that name; {PREFIX}{entry.name} is the kit's. Write that."
        )
    if what.kind in ("fusion", "head"):
        raise UsageError(f"{module} is no attention to put behind a row ({what.kind}); write its row by hand.")
    if not what.is_attention:
        raise UsageError(
            f"{module} is a block of its own, not attention to put behind one. For attention in the blocks: "
            f"{option('module', 'SEAttention')} {option('where', 'inside')}."
        )
    return what, [*positional, options] if options else positional
