"""Turn an error that a host raises while it builds a model into one line that names file and row."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError, RowError, YoloAttnError, first_line, shown

__all__ = ["DEBUG", "told_by_row"]

DEBUG = "YOLO_ATTN_DEBUG"  # if set, the host's own traceback is shown


@contextlib.contextmanager
def told_by_row(file: str = "", *, building: bool = False) -> Iterator[None]:
    """Turn errors of a host's parser within this context into one line, and restore the host's default activation.

    Args:
        file: Name of the YAML, for the message; if empty, the one that the model names.
        building: Only convert errors from building a model and the forward pass for its strides, where the context
            does more than that.

    Raises:
        RowError: A row cannot be built; the message names the row and quotes the host.
        ConfigError: The host failed before the first row; the message quotes it and what stands above the rows.
    """
    before = _activations()
    try:
        yield
    except (YoloAttnError, MemoryError):
        _restore(before)
        raise
    except Exception as exc:  # a wrong row can raise anything in a host's parser
        _restore(before)
        row = _row(exc, building)
        header = _header(exc) if row is None else None
        if header is not None and not os.environ.get(DEBUG):
            ours = ("backbone", "head", "yaml_file", "ch", "channels", "scale", "anchors")
            keys = ", ".join(f"{k}: {shown(v, 60)}" for k, v in header.items() if isinstance(k, str) and k not in ours)
            raise ConfigError(
                f"{file or str(header.get('yaml_file') or 'model YAML')[:300]}: what stands above its rows ({keys[:300]}) cannot be used by the host: "
                f"{type(exc).__name__}: {first_line(exc)[:300]}"
            ) from exc
        if row is None or os.environ.get(DEBUG):
            raise
        number, columns, does, named = row
        said = f"{type(exc).__name__}: {first_line(exc)[:300]}"
        raise RowError(f"{file or named}, row {number} {shown(columns)} cannot be {does} by the host: {said}") from exc


def _row(exc: BaseException, building: bool) -> tuple[int, list[Any], str, str] | None:
    """The row that a host's parser or a forward pass had reached: number, first columns, what was done, file."""
    found, tb = None, exc.__traceback__
    inside, file = False, "model YAML"
    while tb is not None:
        local, name = tb.tb_frame.f_locals, tb.tb_frame.f_code.co_name
        if name == "__init__" and isinstance(getattr(local.get("self"), "yaml", None), dict):
            inside, file = True, str(local["self"].yaml.get("yaml_file") or local.get("cfg") or file)[:300]
        if name == "parse_model" and isinstance(local.get("i"), int):
            m = local.get("m")
            named = str((local.get("d") or {}).get("yaml_file") or file)
            found = local["i"], [local.get("f"), local.get("n"), getattr(m, "__name__", str(m))], "built", named
        elif name in ("_predict_once", "_forward_once", "forward_once") and hasattr(local.get("m"), "i"):
            m = local["m"]
            if inside or not building:
                found = int(m.i), [m.f, 1, str(m.type).rpartition(".")[2]], "run", file
        tb = tb.tb_next
    return found


def _header(exc: BaseException) -> dict[Any, Any] | None:
    """The model whose parser failed before its first row; None for other errors."""
    tb = exc.__traceback__
    while tb is not None:
        d = tb.tb_frame.f_locals.get("d")
        if tb.tb_frame.f_code.co_name == "parse_model" and isinstance(d, dict):
            return d
        tb = tb.tb_next
    return None


def _activations() -> list[tuple[Any, Any]]:
    names = ("ultralytics.nn.modules.conv", "models.common", "yolov5.models.common")
    classes: list[Any] = [getattr(sys.modules.get(n), "Conv", None) for n in names]
    return [(c, c.default_act) for c in classes if hasattr(c, "default_act")]


def _restore(before: list[tuple[Any, Any]]) -> None:
    for cls, activation in before:
        cls.default_act = activation
