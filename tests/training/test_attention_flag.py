"""`train_detect.py --attention NAME`: attention without a YAML, for both hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from yolo_attn import cli
from yolo_attn.model_yaml import check, find, load, placement
from yolo_attn.training import attention_file, options
from yolo_attn.weights.attention import attention_in


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(name: str = "yolov8n.pt") -> Any:
    """A small checkpoint of the ultralytics host in the working folder."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO(name.replace(".pt", ".yaml"))
    model.save(name)
    return model


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--where", "neck"], 2, "--where needs --attention"),
        (["--after", "C3"], 2, "--after needs --attention"),
        (["--args", "reduction=8"], 2, "--args needs --attention"),
        (["--attention", "ECA", "--resume"], 2, "--attention .*--resume"),
        (["--attention", "ECA", "--where", "nekc"], 2, "no placement is called 'nekc'. Did you mean 'neck'"),
        (["--attention", "ECA", "--after", "C2f"], 2, "yolov5s.yaml: no row is a C2f"),
        (["--attention", "SE", "--args", "reduction=0"], 2, "--args reduction=0"),
        (["--attention", "SE", "--args", "reduction"], 2, "--args takes KEY=VALUE, got 'reduction'"),
        (["--attention", "ECAA"], 1, "no attention module is called 'ECAA'"),
        (["--attention", "ECA", "--weights", "tensors.pt"], 1, "does not contain its model|is a state dict"),
    ],
)
def test_mistakes(here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str) -> None:
    """One line, 2 for wrong options, nothing written."""
    import re

    torch.save({"model.0.conv.weight": torch.zeros(3)}, "tensors.pt")
    assert cli.main(["train", *argv]) == code
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, told), told
    assert not Path("runs").exists()


def test_the_yaml_is_what_insert_writes(here: Path) -> None:
    """Named as the kit's own, with the options given; without --where in the neck."""
    o = options.parse("--cfg yolov5n.yaml --attention SE --where backbone,P5 --args reduction=8 lr0=0.1".split())
    assert o.extra == {"lr0": 0.1}
    made = attention_file.made_for(o)
    assert made.name == "yolov5n_se_p5.yaml"
    assert made.text == placement.insert("yolov5n.yaml", "SE", where=["backbone", "P5"], args={"reduction": 8})
    made = attention_file.made_for(options.parse(["--attention", "ECA"]))
    assert made.name == "yolov5s_eca_neck.yaml"
    assert made.text == placement.insert("yolov5s.yaml", "ECA", where="neck")
    more = attention_file.made_for(options.parse("--cfg yolov5n_se.yaml --attention ECA --after C3".split()))
    rows = [r[2] for part in ("backbone", "head") for r in yaml.safe_load(more.text)[part]]
    assert more.name == "yolov5n_se_eca_after_c3.yaml"
    assert (rows.count("SEAttention"), rows.count("ECA")) == (4, 8)


def test_the_yaml_of_a_checkpoint(here: Path) -> None:
    """Read without running it, for a host that is another process; it builds the rows that the checkpoint has."""
    saved()
    made = attention_file.made_for(options.parse("--weights yolov8n.pt --attention ECA".split()))
    file = made.write(here)
    assert file.name == "yolov8n_eca_neck.yaml"
    d = load.read(file)
    check.validate({**d, "scale": "n"}, str(file))
    assert [r[2] for r in d["backbone"] + d["head"]].count("ECA") == 3
    from ultralytics import YOLO

    assert [type(m).__name__ for m in YOLO(str(file)).model.model].count("ECA") == 3


def test_a_yaml_with_a_plug_in_of_its_own_stays_where_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = find.require("yolov5n.yaml").read_text(encoding="utf-8") + "register:\n  Own: own_gate_x.py:Own\n"
    Path("mine.yaml").write_text(text, encoding="utf-8")
    assert cli.main(["train", "--cfg", "mine.yaml", "--attention", "ECA"]) == 1
    assert "yolo-attn insert mine.yaml --module ECA" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["--weights yolov8n.pt", "--cfg yolov5n.yaml"])
def test_a_run_keeps_its_yaml(here: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    """And the checkpoint has attention, its name, and every weight of what it began from."""
    from ultralytics import YOLO

    source = saved() if "weights" in model else None
    argv = "--attention ECA --epochs 1 --img 64 --batch 16 --workers 0 --device cpu --noplots --no-export --noval"
    assert cli.main(["train", *model.split(), *argv.split(), "fraction=0.1", "lr0=0.0", "warmup_epochs=0"]) == 0
    folder = here / "runs" / "train" / "exp"
    stem = f"{'yolov8n' if source else 'yolov5n'}_eca_neck"
    kept = load.read(folder / f"{stem}.yaml")
    assert [r[2] for r in kept["backbone"] + kept["head"]].count("ECA") == 3
    last = YOLO(str(folder / "weights" / "last.pt"))
    assert list(attention_in(last.model).values()) == ["ECA"] * 3
    assert Path(last.model.yaml["yaml_file"]).stem == stem
    assert f"{stem}.yaml" in capsys.readouterr().out  # what comes next names the file that is kept
    if source is not None:
        first = source.model.state_dict()["model.0.conv.weight"]
        assert torch.allclose(last.model.state_dict()["model.0.conv.weight"], first.half().float(), atol=1e-3)
