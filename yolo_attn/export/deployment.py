"""What was seen of each module in each runtime: the table that ``tools/deploy_matrix.py`` makes, as data of the package."""

from __future__ import annotations

import contextlib
import csv
import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from ..errors import FileError
from ..files import read_text

__all__ = [
    "BAD",
    "COLUMNS",
    "EXACT",
    "PATH",
    "PRECISIONS",
    "RESULTS",
    "faults_of",
    "formats_for",
    "installed",
    "key_of",
    "matrix",
    "on_cpu",
    "packages_of",
    "read",
    "versions_in",
    "versions_of",
]

PATH = Path(__file__).with_name("deployment.csv")
COLUMNS = (
    "module", "format", "precision", "result", "difference", "compared", "missing", "extra", "version", "nodes", "rank",
    "beyond", "reason", "measured", "on_cpu",
)  # fmt: skip
PRECISIONS = ("fp32", "fp16", "int8")
EXACT = 1e-5  # of the output's scale: what the order of sums in fp32 makes
# A result, and what it says of a file.
RESULTS = {
    "exact": "equal to PyTorch within 1e-5 of the output's scale, detections equal",
    "close": "equal within the tolerance of the precision, detections equal; int8: the detections that fp32 makes",
    "converted": "converted, not proved: the runtime is for another machine",
    "loses": "int8: converted, and of the detections that fp32 makes, more than 5 % are missing or new",
    "differs": "converted, and computes something else",
    "crashes": "converted, and the runtime does not run it",
    "refused": "not converted",
}
# What a line's versions are of, by format: the runtime, then what converts to it. Any of them may be what fails.
PACKAGES = {
    "onnx": ("onnxruntime",), "openvino": ("openvino",), "ncnn": ("ncnn", "pnnx"), "mnn": ("MNN",),
    "tflite": ("ai-edge-litert", "litert-torch"), "executorch": ("executorch",), "rknn": ("rknn-toolkit2",),
    "coreml": ("coremltools",), "torchscript": ("torch",),
}  # fmt: skip
# What makes a precision from fp32, where that is a package of its own.
QUANTIZERS = {
    ("openvino", "int8"): "nncf", ("tflite", "fp16"): "ai-edge-quantizer", ("tflite", "int8"): "ai-edge-quantizer",
}  # fmt: skip
BAD = ("differs", "crashes", "refused")


@functools.lru_cache(maxsize=1)
def read(path: Path = PATH) -> tuple[Mapping[str, str], ...]:
    """Return the lines of the table, by column.

    Of several lines of one module, format and precision, as a merge of two tables leaves them, the one that was measured
    last counts; of lines of one time the later one.

    Raises:
        FileError: The table is missing or cannot be read, or a line does not have its columns; the message names it.
    """
    remedy = "Install yolo_attn again; in a checkout: git checkout -- yolo_attn/export/deployment.csv"
    if not path.is_file():
        raise FileError(f"{path}: the table of deployment, a part of the package, is missing. {remedy}")
    lines = csv.reader(read_text(path, FileError).splitlines())
    head = next(lines, [])
    if tuple(head) != COLUMNS:
        raise FileError(f"{path}, line 1: the columns are {', '.join(head)}; they should be {', '.join(COLUMNS)}. {remedy}")
    newest: dict[tuple[str, str, str], dict[str, str]] = {}
    for values in lines:
        row = dict(zip(COLUMNS, values))
        if len(values) != len(COLUMNS):
            raise FileError(f"{path}, line {lines.line_num}: has {len(values)} columns, not {len(COLUMNS)}. {remedy}")
        if row["result"] not in RESULTS or row["precision"] not in PRECISIONS:
            told = f"'{row['result']}' in '{row['precision']}'"
            raise FileError(f"{path}, line {lines.line_num}: {told} is no result and precision of the table. {remedy}")
        known = newest.get(key_of(row))
        if known is None or row["measured"] >= known["measured"]:
            newest[key_of(row)] = row
    return tuple(newest.values())


def key_of(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return what a line is of: module, format and precision."""
    return row["module"], row["format"], row["precision"]


def faults_of(modules: Iterable[str], format: str, precision: str, here: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return what is known of modules that failed in a format: what rules an export out, and what to tell beforehand.

    A file that computed something else, or that its runtime did not run, will do so again until the runtime or the
    converter is newer: which of them is the cause, the file does not show. With a newer one it is tried, and the proof
    decides; so is a converter that refused, which can say so itself.

    Args:
        modules: Registered names.
        format: A format's name.
        precision: ``fp32``, ``fp16`` or ``int8``. What fails in fp32 fails in int8, which is made from it, and in fp16
            where that was not tried itself.
        here: Versions of the packages that are installed, by name.
    """
    known = {(r["module"], r["precision"]): r for r in read() if r["format"] == format and r["module"] in modules}
    stops, notes = [], []
    for (module, tried), row in known.items():
        own = known.get((module, precision))
        if row["result"] not in (*BAD, "loses") or tried not in (precision, "fp32"):
            continue
        at = f" in {tried}" if tried != precision else ""
        seen = versions_of(row)
        told = f"{module} {row['result']}{at} with {_listed(seen) or format}: {row['reason']}"
        newer = {package: here[package] for package in seen if numbers(here.get(package, "")) > numbers(seen[package])}
        spared = precision == "fp16" and own is not None and own is not row  # judged by its own line
        if row["result"] not in ("differs", "crashes") or spared:
            notes.append(told)
        elif newer or not seen:
            are = "is" if len(newer) == 1 else "are"
            notes.append(f"{told} {_listed(newer)} {are} installed, so it is tried, and the proof decides" if newer else told)
        else:
            stops.append(f"{told} No newer {' or '.join(seen)} is installed.")
    return stops, notes


def formats_for(modules: Iterable[str], precision: str) -> list[str]:
    """Return the formats in which all of these modules were proved, in one precision."""
    wanted, proved = set(modules), defaultdict(set)
    for row in read():
        if row["precision"] == precision and row["result"] in ("exact", "close"):
            proved[row["format"]].add(row["module"])
    return sorted((f for f, names in proved.items() if wanted <= names), key=lambda f: (f != "onnx", f))


def numbers(version: str) -> list[int]:
    """Return the first three numbers of a release, 0 where it has fewer: 9.0 of 9.0rc1 is [9, 0, 0]; none of an empty text."""
    release = re.match(r"\d+(\.\d+)*", version)
    return [*map(int, release.group().split(".")), 0, 0][:3] if release else []


def packages_of(format: str, precision: str) -> tuple[str, ...]:
    """Return the packages that a file depends on: what runs it, what converts it, and what quantizes it."""
    quantizer = QUANTIZERS.get((format, precision))
    return (*PACKAGES.get(format, ()), *([quantizer] if quantizer else []))


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).partition("+")[0]
    return found


def versions_of(row: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of a line by package; a version without a name is of the format's first one."""
    parts = [part.split() for part in row["version"].split(",") if part.strip()]
    return {name[0] if name else PACKAGES[row["format"]][0]: version for *name, version in parts}


def versions_in(told: Mapping[str, str], row: Mapping[str, str]) -> str:
    """Return the versions for a line, as a report tells them, else as they are installed; without a name where it is one."""
    packages = packages_of(row["format"], row["precision"])
    known = {**installed(packages), **{p: str(v).partition("+")[0] for p, v in told.items()}}
    return known.get(packages[0], "") if len(packages) == 1 else ", ".join(f"{p} {known[p]}" for p in packages if p in known)


def _listed(versions: Mapping[str, str]) -> str:
    return " and ".join(f"{package} {version}" for package, version in versions.items())


def matrix(rows: Iterable[Mapping[str, str]], precision: str = "fp32") -> tuple[list[str], list[list[str]]]:
    """Return the table by module and format: the headings, and a line for each module with its nodes and highest rank."""
    kept = [r for r in rows if r["precision"] == precision]
    formats = list(dict.fromkeys(sorted((r["format"] for r in kept), key=lambda f: (f != "onnx", f))))
    about = {r["module"]: (str(r["nodes"]), str(r["rank"]), r["beyond"]) for r in kept}
    cell = {(r["module"], r["format"]): _cell(r) for r in kept}
    names = sorted(about, key=str.lower)
    return ["module", "nodes", "rank", *formats], [
        [n, *about[n][:2], *(cell.get((n, f), "") for f in formats)] for n in names
    ]


def on_cpu(rows: Iterable[Mapping[str, str]]) -> list[list[str]]:
    """Return module, format, precision and operators of the lines where an NPU's compiler leaves some to the CPU."""
    return [[*key_of(r), r["on_cpu"]] for r in rows if r["on_cpu"]]


def _cell(row: Mapping[str, str]) -> str:
    if row["precision"] == "int8" and row["compared"]:
        return f"{row['result']} {1 - int(row['missing']) / max(int(row['compared']), 1):.1%}"
    return f"{row['result']} {row['difference']}".strip() if row["result"] in ("close", "differs") else row["result"]
