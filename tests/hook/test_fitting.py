"""A constructor that does not fit is shown beside its row, with the row that does, which then builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import yolo_attn
from yolo_attn.errors import RowError
from yolo_attn.hook import seams

CODE = '''
import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self, dim, num_heads=8, qkv_bias=False):
        super().__init__()
        assert dim % num_heads == 0, f"dim {dim} should be divided by num_heads {num_heads}."
        self.fc = nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        return x * self.fc(x).sigmoid()


class Needs(Heads):
    def __init__(self, channels, reduction):
        super().__init__(channels)
        self.g = nn.Conv2d(channels, channels // reduction, 1)


class Odd(Heads):
    def __init__(self, channels, kernel_size=3):
        super().__init__(channels)
        if kernel_size % 2 == 0:
            raise ValueError("kernel size must be odd")


class Never(Heads):
    def __init__(self, channels):
        raise RuntimeError("not yet written")
'''
OWN = ("Heads", "Needs", "Odd", "Never")


def model(folder: Path, row: list[Any]) -> Path:
    (folder / "fitting_mods.py").write_text(CODE, encoding="utf-8")
    d = {
        "nc": 2,
        "register": {name: f"fitting_mods.py:{name}" for name in OWN},
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], row, [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[[-1], 1, "Detect", ["nc"]]],
    }
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(d), encoding="utf-8")
    return file


def build(file: Path) -> Any:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(str(file), verbose=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    yolo_attn.install()
    return tmp_path_factory.mktemp("fitting")


@pytest.mark.parametrize(
    ("row", "constructor", "fits"),
    [
        ([-1, 1, "Heads", [{"num_heads": 3}]], "Heads(dim, num_heads=8, qkv_bias=False), fitting_mods.py:7", "[-1, 1, Heads, [{num_heads: 2}]]"),
        ([-1, 1, "Heads", [{"num_head": 4}]], "Heads(dim, num_heads=8", "[-1, 1, Heads, [{num_heads: 4}]]"),
        ([-1, 1, "Heads", [1024]], "Heads(dim, num_heads=8", "[-1, 1, Heads, []]"),
        ([-1, 1, "Needs", []], "Needs(channels, reduction), fitting_mods.py:17", "[-1, 1, Needs, [{reduction: 4}]]"),
        ([-1, 2, "Odd", [{"kernel_size": 4}]], "Odd(channels, kernel_size=3), fitting_mods.py:23", "[-1, 2, Odd, [{kernel_size: 3}]]"),
        ([-1, 1, "SE", [{"reductio": 4}]], "SEAttention(channels, *, reduction=16", "[-1, 1, SE, [{reduction: 4}]]"),
        ([-1, 1, "C3SE", []], "C3SE(c1, c2, n=1", "[-1, 1, C3SE, [16]]"),
        ([-1, 1, "ECA", [{"kernel_size": 4}]], "ECA(channels, *, kernel_size=None", "[-1, 1, ECA, [{kernel_size: 3}]]"),
        ([0, 1, "CBAM", [1024]], "CBAM(channels, *, reduction=16", "[0, 1, CBAM, []]"),
    ],
)  # fmt: skip
def test_the_constructor_and_the_row_that_builds_are_shown(folder: Path, row: list[Any], constructor: str, fits: str) -> None:
    with pytest.raises(RowError) as caught:
        build(model(folder, row))
    told = str(caught.value)
    assert "\n" not in told and f"Its constructor: {constructor}" in told
    assert told.endswith(f"This row builds: {fits}")
    build(model(folder, yaml.safe_load(fits)))


def test_no_row_is_shown_where_none_builds(folder: Path) -> None:
    with pytest.raises(RowError, match=r"not yet written\. Its constructor: Never\(channels\), fitting_mods\.py:30\.$"):
        build(model(folder, [-1, 1, "Never", []]))


def test_nothing_of_an_untrusted_model_is_built_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> str:
        raise AssertionError("built")

    monkeypatch.setattr(seams, "fitting_row", never)
    token = seams._layers_only.set(True)
    try:
        told = seams._beside(int, seams.Binding.of(Path), [], [16], -1, 1, 1, {}, lambda c: c)
    finally:
        seams._layers_only.reset(token)
    assert told.startswith(" Its constructor: int(")


@pytest.mark.parametrize("text", ["{reduction: 8}", "{gate: hard_sigmoid, bias: true}"])
def test_a_row_is_written_as_yaml_reads_it(text: str) -> None:
    from yolo_attn.hook.fitting import _written

    row = [[-1, 6], 1, "SE", [yaml.safe_load(text)]]
    assert yaml.safe_load(_written(row)) == row
    assert not re.search(r"['\"]|True", _written(row))
