"""Conversions that a new process can import, for tests of the process that converts; see tests/export/test_apart.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from yolo_attn.weights.attention import attention_in

marked = False  # set in the process that asks, so that a fork of it has it


def about(*given: Any) -> Path:
    """Write what this process is like, and what it was given."""
    print("printed by the converter")
    sums = [int(g.sum()) for g in given if hasattr(g, "sum")]
    networks = [attention_in(g.source.model) for g in given if hasattr(g, "source")]
    told = {"marked": marked, "folder": os.getcwd(), "late": os.environ.get("SET_LATE"), "sums": sums, "networks": networks}
    file = Path("about.json")
    file.write_text(json.dumps(told), encoding="utf-8")
    return file


def crash() -> Path:
    """End this process as a compiler does."""
    os.write(1, b"no room\n")
    os._exit(3)


def endless() -> Path:
    """Write into the working directory without an end, in another process that this one launches."""
    code = "import itertools, time\nfor k in itertools.count(): open(f'{k}.bin', 'wb').write(bytes(1000)); time.sleep(0.001)"
    launched = subprocess.Popen([sys.executable, "-c", code])
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {launched.pid}", encoding="utf-8")
    time.sleep(3600)
    return Path("never")
