"""What a classic checkpoint's host lacks is named: the host itself, or a package that its code needs."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import pytest

from yolo_attn.detectors import classic
from yolo_attn.errors import CheckpointError


@pytest.mark.parametrize(
    ("package", "exc", "told"),
    [
        ("models", ModuleNotFoundError("No module named 'models'", name="models"), "needs that host's code: name its checkout with --host DIR"),
        ("models", ModuleNotFoundError("No module named 'utils.loss'", name="utils.loss"), "name its checkout with --host DIR"),
        ("yolov5.models", ModuleNotFoundError("No module named 'yolov5'", name="yolov5"), "needs that host's code: pip install yolov5"),
        ("models", ModuleNotFoundError("No module named 'pandas'", name="pandas"), "needs the package 'pandas', which is not installed: pip install pandas$"),
        ("yolov5.models", ModuleNotFoundError("No module named 'yaml.cyaml'", name="yaml.cyaml"), "'yaml', which is not installed: pip install pyyaml$"),
        ("models", ModuleNotFoundError("", name="pkg_resources"), r"pip install 'setuptools<81'$"),
        ("models", ImportError("cannot import name 'x' from 'torch'", name="torch"), "whose host's code cannot be imported: cannot import name 'x'"),
    ],
)  # fmt: skip
def test_what_is_missing(package: str, exc: ImportError, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise exc

    monkeypatch.setattr(classic, "is_classic", lambda file: package)
    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(CheckpointError, match=told) as caught:
        classic.open_classic(Path("best.pt"))
    assert "--host DIR" not in str(caught.value) or exc.name in ("models", "utils.loss")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Weights only load failed.\n\tUnsupported global: GLOBAL getattr was not allowed", "best.pt: holds 'getattr', .*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"),
        ("pickle data was truncated", "best.pt: YOLOv5 cannot load it: pickle data was truncated$"),
    ],
)  # fmt: skip
def test_what_pytorch_does_not_load(said: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segmentation of v7.0 pickles a method, which torch 2.6 and later read only where the user trusts the file."""

    class Host:
        @staticmethod
        def attempt_load(*args: object, **options: object) -> None:
            raise pickle.UnpicklingError(said)

    monkeypatch.setattr(classic, "is_classic", lambda file: "models")
    monkeypatch.setattr(importlib, "import_module", lambda name: Host)
    with pytest.raises(CheckpointError, match=told):
        classic.open_classic(Path("best.pt"))
