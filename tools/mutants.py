"""Make changes that tests must notice, one at a time in a copy of the checkout, and report the unnoticed ones.

    python tools/mutants.py            # takes a few minutes; the exit code is 1 if a change is not noticed
    python tools/mutants.py log.py     # only files with this in their name

Each entry is a change that no test once noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """A change and the test that must fail with it."""

    file: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant("yolo_attn/registry/parameters.py", "LEAST_WIDTH = 8", "LEAST_WIDTH = 2", "tests/registry/test_binding.py"),
    Mutant("yolo_attn/log.py", "if rank.isdigit() and int(rank) > 0:", "if False:",
           "tests/system/test_log.py::test_only_the_first_worker_speaks"),
    Mutant("yolo_attn/system/drafts.py", "            if not os.path.lexists(path):", "            if True:",
           "tests/test_files.py::test_an_error_leaves_the_old_file_and_no_draft"),
    Mutant("yolo_attn/system/console.py", "        os.environ.update(", "        dict().update(",
           "tests/system/test_console.py::test_the_process_is_left_as_it_was"),
    Mutant("yolo_attn/system/console.py", "        for name in os.environ.keys() - environment.keys():", "        for name in ():",
           "tests/system/test_console.py::test_the_process_is_left_as_it_was"),
    Mutant("yolo_attn/cli.py", "return 2 if isinstance(exc, UsageError) else 1", "return 1",
           "tests/system/test_console.py::test_wrong_options_are_2_and_wrong_files_1"),
    Mutant("yolo_attn/registry/binding.py", "min(LARGEST_OPTION, channels // 2)", "LARGEST_OPTION",
           "tests/registry/test_binding.py::test_rows_that_contradict"),
    Mutant("yolo_attn/hook/seams.py", "if x >= i and not", "if x > i and not",
           "tests/registry/test_binding.py::test_a_row_reads_rows_before_it"),
    Mutant("yolo_attn/registry/registry.py", "again = old is not None and old.owner == entry.owner", "again = old is not None",
           "tests/registry/test_registry.py::test_a_name_that_is_another_class_is_not_given_away"),
    Mutant("yolo_attn/training/classic.py", "if _can_begin(options.cfg):", "if True:",
           "tests/test_sentences.py::test_train_on_the_classic_host_how_attention_begins"),
    Mutant("yolo_attn/kit.py", 'if install.repairing() else ""', 'if False else ""',
           "tests/training/test_train.py::test_the_lines_in_front_of_a_workers_script"),
    Mutant("yolo_attn/weights/align.py", 'and s.attention[""] == t.attention[""]', "and True",
           "tests/weights/test_weights.py::test_attention_goes_into_its_own_kind_where_another_has_the_same_shapes"),
    Mutant("yolo_attn/weights/align.py", "    if s.family and s.attention.get(path) != name:", "    if False:",
           "tests/weights/test_weights.py::test_attention_goes_into_its_own_kind_where_another_has_the_same_shapes"),
    Mutant("yolo_attn/weights/align.py", "head.new or head.mismatch or ", "",
           "tests/weights/test_weights.py::test_class_names_come_with_a_whole_head_alone"),
    Mutant("patches/yolov5_shared.py", 'REPAIRED = ("utils.general", ', "REPAIRED = (",
           "tests/hook/test_hosts.py::test_a_dropped_name_of_numpy_in_the_hosts_general_module"),
]  # fmt: skip


def main() -> int:
    """Try each change, print one line for it, and return the exit code."""
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="yolo_attn_mutants_") as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".hosts*", "__pycache__", "runs", ".*_cache"))
        for mutant in [m for m in MUTANTS if not sys.argv[1:] or any(word in m.file for word in sys.argv[1:])]:
            file = copy / mutant.file
            text = file.read_text(encoding="utf-8")
            if text.count(mutant.old) != 1:
                print(f"{mutant.file}: {mutant.old.strip()!r} found {text.count(mutant.old)} times, expected once")
                unnoticed += 1
                continue
            file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
            noticed = not passes(copy, mutant.test)
            file.write_text(text, encoding="utf-8")
            whole = passes(copy, mutant.test)
            unnoticed += not (noticed and whole)
            word = "noticed" if noticed and whole else "UNNOTICED" if whole else "the test fails without the change too"
            print(f"{word}: {mutant.file}: {mutant.old.strip()!r} -> {mutant.new.strip()!r} ({mutant.test})", flush=True)
    return int(bool(unnoticed))


def passes(copy: Path, test: str) -> bool:
    """Run one test on the copy."""
    path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))
    hosts = os.environ.get("YOLO_ATTN_TEST_HOSTS") or str(ROOT / "tests" / ".hosts")
    env = {**os.environ, "PYTHONPATH": path, "YOLO_ATTN_TEST_HOSTS": hosts, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest cannot run {test}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
