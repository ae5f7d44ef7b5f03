"""Check the arguments of :func:`~.placement.insert` and its like: the model, placements, the module and its options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from ..errors import ConfigError, PluginError, UsageError, shown
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
    """Read the model that `insert`, `remove` or `set_start` is to change.

    Args:
        cfg: As for :func:`~.placement.insert`.

    Returns:
        Its text, or None for a dictionary; the model dictionary; its name, for messages; the scale letter of the name.

    Raises:
        UsageError: `cfg` is not a model YAML.
        ConfigError: `cfg` is not a valid model.
    """
    if isinstance(cfg, dict):
        name = str(cfg.get("yaml_file") or "model dictionary")
        check.validate(cfg, name)
        return None, cfg, name, ""
    if not isinstance(cfg, (str, os.PathLike)) or str(cfg).endswith(".pt"):
        kind = f"{cfg} is a checkpoint" if isinstance(cfg, (str, os.PathLike)) else f"a {type(cfg).__name__} was given"
        raise UsageError(
            f"{kind}; insert and remove change a model's YAML, given by name, path, text or dictionary. For a built "
            f"model: yolo_attn.attach(detector, 'ECA', where='neck')."
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
    """Load the plug-ins of a file; one that fails is announced, since the file can be edited without it."""
    try:
        plugins.load_register(d, path.parent, name)
    except PluginError as exc:
        announce("%s; options are not checked", exc)


def several(name: str, given: Any, types: tuple[type, ...]) -> list[Any]:
    """Return an option's one or several values as a list without duplicates.

    Args:
        name: Name of the option, for messages.
        given: A value, an iterable of values, or None.
        types: Types of a value.

    Raises:
        UsageError: A value is of another type.
    """
    several = given if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else [given]
    values = [] if given is None else list(dict.fromkeys(several))
    for value in values:
        if isinstance(value, bool) or not isinstance(value, types):
            wanted = "module types or row numbers" if int in types else "placements, such as 'neck'"
            raise UsageError(f"{option(name)} takes {wanted}, got {shown(value)}")
    return values


def module_options(module: str, d: dict[str, Any], start: str | None, args: Any) -> tuple[Named, list[Any]]:
    """Check a module and its options; return the resolved module and the arguments of its row.

    Args:
        module: Name of the module.
        d: The model dictionary.
        start: How attention begins, or None.
        args: The options; see :func:`~.placement.insert`.

    Raises:
        UsageError: The module cannot be inserted as a row, or the options are of the wrong type.
        UnknownModuleError: The module is not registered.
    """
    if args is not None and (isinstance(args, str) or not isinstance(args, (Mapping, Sequence))):
        raise UsageError(f"{option('args')} takes the module's options by name, e.g. reduction 8, got {shown(args)}")
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
            f"'{module}' in a row is the host's own module of that name; write {PREFIX}{entry.name} for the kit's."
        )
    if what.kind in ("fusion", "head"):
        raise UsageError(
            f"{module} is not attention to insert after a row but a {what.kind} module; write its row by hand."
        )
    if not what.is_attention:
        raise UsageError(
            f"{module} is a block, not attention to insert after one. For attention inside the blocks: "
            f"{option('module', 'SEAttention')} {option('where', 'inside')}."
        )
    return what, [*positional, options] if options else positional
