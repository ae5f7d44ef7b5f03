"""Several formats of one detector, opened once: a format that fails does not keep the others from being written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..detectors.classic import is_classic
from ..detectors.opening import open_source
from ..errors import ExportError, UsageError, YoloAttnError
from .asked import Asked
from .beside import of_other_weights
from .formats.table import FORMATS, NAMES, check_host, named
from .single import ExportResult, export_source

__all__ = ["Outcome", "export_several", "formats_of"]


@dataclass(frozen=True)
class Outcome:
    """What became of one format: a result, or the error that says why there is none."""

    format: str
    result: ExportResult | None = None
    problem: str = ""


def formats_of(texts: Iterable[str]) -> list[str]:
    """Return the formats that a user named, each once: in one text with commas, or in several.

    Raises:
        UsageError: One of them is unknown, or none is named.
    """
    found = list(dict.fromkeys(named(part.strip()) for text in texts for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"--format names none, choose from {', '.join(NAMES)}")
    return found


def export_several(
    weights: str | os.PathLike[str],
    formats: Sequence[str],
    asked: Asked,
    *,
    cfg: str | os.PathLike[str] | None = None,
    log: Callable[[str], Any] = print,
) -> list[Outcome]:
    """Export a detector to several formats.

    Args:
        weights: As for :func:`.single.export`.
        formats: Their names.
        asked: The options; its format is not looked at.
        cfg: A model YAML to load the checkpoint's weights into.
        log: Called with each line of progress.

    Returns:
        One outcome per format, in order.

    Raises:
        YoloAttnError: The options contradict each other, or the detector cannot be opened; of a single format, also
            what is wrong with it.
    """
    if asked.output is not None and not os.path.isdir(asked.output) and len(formats) > 1:
        raise UsageError(f"--output {asked.output}: for several formats it must be a folder that exists")
    ready: dict[str, Asked | str] = {}
    # a processor concerns the formats that are for one; where none of them is, that is told of the first
    with_chips = [name for name in formats if name in FORMATS and FORMATS[name].chips] or formats
    classic = cfg is None and bool(is_classic(Path(weights)))
    for name in formats:
        try:
            check_host(name, Path(weights), classic)
            replace(asked, format=name).check_offered()
        except UsageError as exc:  # of this format alone
            if len(formats) == 1:
                raise
            ready[name] = str(exc)
    asked = asked.measured() if len(ready) < len(formats) else asked
    for name in (n for n in formats if n not in ready):
        try:
            ready[name] = replace(asked, format=name, chip=asked.chip if name in with_chips else "").checked()
        except ExportError as exc:  # a package is missing: known before anything is opened, and of this format alone
            if len(formats) == 1:
                raise
            ready[name] = str(exc)
    if all(isinstance(v, str) for v in ready.values()):
        return [Outcome(name, problem=str(ready[name])) for name in formats]
    source = open_source(weights, cfg)
    for note in source.notes:
        log(f"note: {note}")
    done = []
    for name in formats:
        options = ready[name]
        if isinstance(options, str):
            done.append(Outcome(name, problem=options))
            continue
        try:
            done.append(Outcome(name, export_source(source, options, log)))
        except YoloAttnError as exc:
            if len(ready) == 1:
                raise
            done.append(Outcome(name, problem=str(exc)))
    for line in of_other_weights((d.result.path, d.result.report) for d in done if d.result is not None):
        log(f"note: {line}")
    return done
