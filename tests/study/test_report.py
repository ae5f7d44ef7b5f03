"""Reports: of a study, and of training folders that anyone left, whole, damaged, of either host and every generation."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import string
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from conftest import run_python
from reading_pages import Read, font_with
from test_study_statistics import scene

from yolo_attn import cli
from yolo_attn.errors import DataError, FileError, UsageError
from yolo_attn.evaluation import figures as evaluation
from yolo_attn.evaluation import images
from yolo_attn.pages import fonts
from yolo_attn.study import (
    about,
    candidates,
    closing,
    drawing,
    folders,
    gathering,
    latency,
    latex,
    logs,
    plan,
    record,
    report,
    results,
    statistics,
    verdict,
    wording,
    worker,
)

CLASSES = ["<b>&$_%", "square", "a\\b{c}|"]
CONFIGS = ["yolov5n.yaml", "yolov5n_se.yaml:identity", "yolov5n_eca_neck.yaml"]
SVG = "{http://www.w3.org/2000/svg}"

# -- logs, as each host has written them

NAMES = {
    "8.0": "epoch train/box_loss train/cls_loss train/dfl_loss metrics/precision(B) metrics/recall(B) metrics/mAP50(B) "
    "metrics/mAP50-95(B) val/box_loss val/cls_loss val/dfl_loss lr/pg0 lr/pg1 lr/pg2",
    "8.2": "epoch train/box_loss train/cls_loss train/dfl_loss metrics/precision(B) metrics/recall(B) metrics/mAP50(B) "
    "metrics/mAP50-95(B) val/box_loss val/cls_loss val/dfl_loss lr/pg0 lr/pg1 lr/pg2",
    "8.4": "epoch time train/box_loss train/cls_loss train/dfl_loss metrics/precision(B) metrics/recall(B) metrics/mAP50(B) "
    "metrics/mAP50-95(B) val/box_loss val/cls_loss val/dfl_loss lr/pg0 lr/pg1 lr/pg2",
    "classic": "epoch train/box_loss train/obj_loss train/cls_loss metrics/precision metrics/recall metrics/mAP_0.5 "
    "metrics/mAP_0.5:0.95 val/box_loss val/obj_loss val/cls_loss x/lr0 x/lr1 x/lr2",
}
FIRST = {"8.0": 0, "8.2": 1, "8.4": 1, "classic": 0}


def log_text(generation: str, curve: list[float]) -> str:
    """A log whose mAP50-95 is this curve, mAP50 twice that, precision and recall 0.7 and 0.6, losses 1 each."""
    names = NAMES[generation].split()
    width = {"8.0": 23, "8.2": 23, "8.4": 0, "classic": 20}[generation]
    out = [",".join(f"{n:>{width}}" for n in names)]
    for k, value in enumerate(curve):
        cells = []
        for n in names:
            number = {"epoch": k + FIRST[generation], "time": 2.5 * (k + 1)}.get(n, 1.0)
            if n.startswith("metrics"):
                number = 0.7 if "prec" in n else 0.6 if "recall" in n else value if "95" in n else 2 * value
            cells.append(f"{number:>{width}.5g}")
        out.append(",".join(cells))
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("generation", list(NAMES))
def test_logs_of_every_generation(generation: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(log_text(generation, [0.1, 0.4, 0.3]), encoding="utf-8")
    log = logs.read(tmp_path / "results.csv")
    assert log.epochs == [1, 2, 3] and log.skipped == 0 and log.best() == 1
    assert log.columns["mAP50-95"] == [0.1, 0.4, 0.3] and log.columns["mAP50"] == [0.2, 0.8, 0.6]
    assert log.columns["precision"] == [0.7] * 3 and log.columns["recall"] == [0.6] * 3
    assert log.columns["train loss"] == [3.0] * 3 == log.columns["val loss"]
    assert ("time" in log.columns) == (generation == "8.4")


def test_a_log_that_is_damaged_or_was_resumed(tmp_path: Path) -> None:
    file, text = tmp_path / "results.csv", log_text("8.4", [0.1, 0.2, 0.3])
    lines = text.splitlines()
    resumed = lines[2].replace(",0.2,", ",0.25,")
    broken = [*lines, "3,7.5,1,1", resumed, "4,10,x,1,1,0,0,0,0,1,1,1,1,1,1", lines[3].replace("3,", "3.5,", 1), "\0\0"]
    file.write_text("\n".join(broken), encoding="utf-8")
    log = logs.read(file)
    assert log.epochs == [1, 2, 3] and log.skipped == 3 and log.columns["mAP50-95"] == [0.1, 0.25, 0.3]
    file.write_text(text.replace(",0.2,", ",nan,"), encoding="utf-8")
    assert math.isnan(logs.read(file).columns["mAP50-95"][1]) and logs.read(file).best() == 2
    for bad, said in (("", "no column 'epoch'"), (lines[0], "no finished epoch"), ("\x80PK..", "no column 'epoch'")):
        file.write_bytes(bad.encode("latin-1"))
        with pytest.raises(FileError, match=said):
            logs.read(file)
    file.unlink()
    with pytest.raises(FileError, match="cannot be read"):
        logs.read(file)


# -- a study


def detections(seed: int, quality: float) -> tuple[list[Any], list[Any]]:
    truth, found = scene(count=14, seed=0, classes=3)
    rng = np.random.default_rng(seed)
    kept = [f[rng.random(len(f)) < quality] for f in found]
    return truth, kept


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three configs and three seeds but for one failed run, whose figures are invented."""
    folder = tmp_path_factory.mktemp("made") / "study"
    made = candidates.from_names(CONFIGS)
    the = plan.of(
        made, host="ultralytics", data="/data/my_set.yaml", data_sha256="", weights="", weights_sha256="", epochs=4,
        seeds=(0, 1, 2), arguments={"imgsz": 96},
    )  # fmt: skip
    plan.settle(folder, the, made)
    for run in the.runs:
        place = record.folder_of(folder, run)
        place.mkdir(parents=True)
        k = list(the.configs).index(run.config)
        if run.name == "yolov5n_eca_neck-2":
            record.write(folder, the, run, {"status": "failed", "reason": "RuntimeError: <oom> & more"})
            continue
        truth, found = detections(run.seed * 7 + k, [0.6, 0.95, 0.6][k])
        worker.keep(place / worker.DETECTIONS, truth, found)
        figures = evaluation.figures(truth, found, CLASSES)
        curve = [figures["mAP50-95"] * s for s in (0.2, 0.6, 0.9, 1.0)]
        (place / "results.csv").write_text(log_text("8.4", curve), encoding="utf-8")
        about_run = {"figures": figures, "split": "val", "images": 14, "parameters": 2_500_000 + k * 10_000, "gflops": 0.2}
        record.write(folder, the, run, {"status": "finished", **about_run, "seconds": 60.0 + k})
    made_up = {n: latency.Latency(5.0 + k, 0.1, 1 + k / 50, 1 + k / 60, 1 + k / 40) for k, n in enumerate(the.configs)}
    (folder / latency.FILE).write_text(json.dumps({"configs": {n: vars(v) for n, v in made_up.items()}}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def written(study: Path) -> tuple[list[dict[str, Any]], Path]:
    return closing.close(study)


def test_a_report_is_a_page_that_stands_alone(study: Path, written: Any) -> None:
    rows, page = written
    text = page.read_text(encoding="utf-8")
    read = Read(text)
    assert read.asked == [] and read.tags.count("svg") == 5 and read.tags.count("table") == 4
    assert len(read.ids) == len(set(read.ids)), "two figures share ids"
    assert "&lt;b&gt;&amp;$_%" in text and "<b>&" not in text and "RuntimeError: &lt;oom&gt;" in text
    for line in verdict.lines(rows):
        assert line.replace("<", "&lt;") in text
    assert "1 of 9 runs have not finished: yolov5n_eca_neck-2." in text and "epochs: 4" in text
    assert sorted(p.name for p in (study / "figures").iterdir()) == sorted(
        f"{n}.{k}" for n in report._NAMES for k in ("pdf", "svg")
    )


@pytest.mark.parametrize("name", report._NAMES)
def test_every_config_has_a_curve(name: str, study: Path, written: Any) -> None:
    svg = ElementTree.fromstring((study / "figures" / f"{name}.svg").read_text(encoding="utf-8"))
    ids = [e.get("id") for e in svg.iter() if (e.get("id") or "").startswith("curve-")]
    configs = ["yolov5n", "yolov5n_se_identity", "yolov5n_eca_neck"]
    wanted = [f"curve-{c}" for c in (configs[1:] if name == "classes" else configs)]
    assert sorted(set(ids)) == sorted(wanted)
    said = {t.text for t in svg.iter(f"{SVG}text")}
    assert set(configs[1:]) <= said, "the legend is no text"
    if name == "training":
        assert {"1", "4"} <= said and not {"1.5", "1.0"} & said, "epochs are whole"
    if name == "classes":
        assert set(CLASSES) <= said, "a class's name is taken for a formula"


def test_the_table_of_latex(study: Path, written: Any) -> None:
    text = (study / "ablation.tex").read_text(encoding="utf-8")
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert len(lines) == 3 and all(len(re.split(r"(?<!\\)&", line)) == len(columns[1]) for line in lines)
    assert [line.count("\\checkmark") for line in lines] == [0, 3, 3], "module, place and start"
    assert text.count("\\begin{") == text.count("\\end{") and text.count("{") == text.count("}")
    assert "standard deviation over 2 to 3 seeds." in text, "one run of nine failed"
    assert "yolov5n\\_se\\_identity" in text and "\\multicolumn{2}{c}{module}" in text and "my\\_set" in text
    rows = written[0]
    best = max(rows, key=lambda r: r["mAP50-95"])
    assert f"\\textbf{{{best['mAP50-95']:.3f}{{\\scriptsize" in text
    same = [r for r in rows[1:] if r["verdict"] == statistics.SAME]
    assert ("\\dagger$ not distinguishable" in text) == bool(same)


def test_latex_says_what_names_need(written: Any) -> None:
    rows = [{**r, "config": f"混合 {r['config']}"} for r in written[0]]
    english = wording.Words("en")
    assert "ctex" in latex.table(rows, english, "d").splitlines()[0] and "ctex" not in latex.table(written[0], english, "d")


def test_latex_prints_names_as_they_are() -> None:
    assert latex.escape("a_b%c&d#e$f{g}h~i^j\\k\nl") == (
        "a\\_b\\%c\\&d\\#e\\$f\\{g\\}h\\textasciitilde{}i\\textasciicircum{}j\\textbackslash{}k l"
    )


def has_latex() -> bool:
    """Whether this machine has LaTeX with the packages that the table names."""
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    done = subprocess.run(["kpsewhich", "booktabs.sty", "amssymb.sty"], capture_output=True, text=True, check=False)
    return len(done.stdout.split()) == 2


@pytest.mark.skipif(not has_latex(), reason="no LaTeX with booktabs here")
def test_latex_takes_it(study: Path, written: Any, tmp_path: Path) -> None:
    shutil.copy(study / "ablation.tex", tmp_path)
    (tmp_path / "a.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,amssymb,graphicx}\\begin{document}\\input{ablation}\\end{document}", encoding="utf-8"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"], cwd=tmp_path, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_markdown_has_whole_tables_and_its_figures(study: Path, written: Any) -> None:
    text = (study / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    for file in re.findall(r"\]\(([^)]+)\)", text):
        assert (study / file).is_file(), file


def test_in_chinese(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The font is the test's own: a machine that runs it need not have one."""
    copy = shutil.copytree(study, tmp_path / "study")
    font = font_with(wording.Words("zh").characters + string.printable + "−±…", tmp_path / "han.ttf")
    monkeypatch.setattr(fonts, "_files", lambda: [str(font)])
    fonts._find.cache_clear()
    try:
        rows, page = closing.close(copy, "zh")
    finally:
        fonts._find.cache_clear()
    text = page.read_text(encoding="utf-8")
    Read(text)
    assert '<html lang="zh-CN">' in text and "注意力在这里有用吗？" in text and "精确率" in text
    assert all(line.replace("<", "&lt;") in text for line in verdict.lines(rows, "zh"))
    svg = (copy / "figures" / "precision-recall.svg").read_text(encoding="utf-8")
    assert "召回率" in svg and "recall" not in svg
    tex = (copy / "ablation.tex").read_text(encoding="utf-8")
    assert "ctex" in tex.splitlines()[0] and "骨干" in tex and "\\checkmark" in tex


def test_without_a_font_nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(fonts, "_files", list)
    fonts._find.cache_clear()
    for command in (["report", str(tmp_path)], ["compare", "--cfgs", "yolov5n.yaml", "yolov5n_se.yaml", "-o", str(tmp_path / "s")]):
        assert cli.main([*command, "--lang", "zh"]) == 1
        assert "apt install fonts-noto-cjk" in capsys.readouterr().err
    assert not list(tmp_path.glob("s/runs/*"))
    assert cli.main(["report", str(tmp_path), "--lang", "fr"]) == 2
    assert cli.main(["compare", "--cfgs", "yolov5n.yaml", "yolov5n_se.yaml", "-o", str(tmp_path / "s"), "--lang", "fr"]) == 2
    assert not (tmp_path / "s").exists()
    fonts._find.cache_clear()


def test_texts_have_the_same_keys_and_fields_in_both_languages() -> None:
    english, chinese = wording.TEXTS["en"], wording.TEXTS["zh"]
    assert set(english) == set(chinese)
    for key, text in english.items():
        asked = [sorted(f for _, f, _, _ in string.Formatter().parse(t.replace("{c}", "")) if f) for t in (text, chinese[key])]
        assert asked[0] == asked[1], key


def test_whatever_statistics_say_is_said_in_chinese() -> None:
    source = Path(statistics.__file__).read_text(encoding="utf-8")
    reasons = re.findall(r'why = "([^"]+)"', source)
    assert len(reasons) == 4 and set(reasons) <= set(wording.SAID)
    assert {statistics.BETTER, statistics.WORSE, statistics.SAME, statistics.UNTOLD, statistics.POOLED, statistics.PAIRED} <= set(
        wording.SAID
    )
    assert set(about.PLACES) <= set(wording.SAID)


def test_precision_and_recall_are_the_evaluators() -> None:
    truth, found = scene(count=20, seed=3)
    curve = drawing.recall_levels(images.match(truth, found, 3))
    assert curve.shape == (101,)
    assert curve.mean() == pytest.approx(evaluation.figures(truth, found, ["a", "b", "c"])["mAP50"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "modules", "places", "starts"),
    [
        ("yolov5n", (), (), ()),
        ("yolov5n_se", ("SEAttention",), ("backbone",), ("paper",)),
        ("yolov5n_eca_neck", ("ECA",), ("neck",), ("paper",)),
        ("yolov5n_c3se", ("SEAttention",), ("backbone", "inside"), ("paper",)),
        ("yolov5n_bifpn", ("WeightedConcat",), ("head",), ()),
    ],
)
def test_what_a_config_is_made_of(name: str, modules: Any, places: Any, starts: Any) -> None:
    from yolo_attn.model_yaml import find, load

    found = about.of(load.read(find.require(f"{name}.yaml")))
    assert (found.modules, found.places, found.starts) == (modules, places, starts) and found.known
    assert not about.of({"backbone": 7}).known


def test_an_interval_of_few_images_is_wider_than_percentiles() -> None:
    truth, found = scene(count=12, seed=1)
    few = images.match(truth, found, 3)
    low, high = images._ends(few)
    assert 0.3 < low < 2.2 and low + high == pytest.approx(100)
    many = images.Matches(10_000, [images.ClassMatches(np.zeros(0, int), np.zeros((10, 0), bool), np.ones(10_000))])
    assert images._ends(many)[0] == pytest.approx(2.5, abs=0.01)


def test_the_interval_of_a_median() -> None:
    """Of 100 values in order the 40th to the 61st hold their median in 95 of 100 samples, as tables of quantiles say."""
    assert latency._of_median(range(1, 101)) == (40, 61)
    assert latency._of_median([3, 1, 2]) == (1, 3)


# -- training folders


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Write a training folder as a host leaves it; the parts that are None are missing."""

    def write(
        name: str, model: str | None, seed: int | None, curve: list[float] | None, generation: str = "8.4", **more: Any
    ) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "weights").mkdir(parents=True)
        settings = {"epochs": len(curve or [0] * 3), "imgsz": 64, "data": "/gone/my.yaml", **more}
        if generation == "classic":
            opt = {"cfg": model, "weights": "", "hyp": {"lr0": 0.01}, "batch_size": 16, "seed": seed, **settings}
            text = yaml.safe_dump({k: v for k, v in opt.items() if v is not None})
            file = "opt.yaml"
        else:
            args = {"task": "detect", "model": model, "batch": 16, "lr0": 0.01, "pretrained": True, "seed": seed, **settings}
            text = yaml.safe_dump({k: v for k, v in args.items() if v is not None})
            file = "args.yaml"
        if model is not None:
            (folder / file).write_text(text, encoding="utf-8")
        if curve is not None:
            (folder / "results.csv").write_text(log_text(generation, curve), encoding="utf-8")
        return folder

    return write


def said(found: results.Results) -> str:
    words = wording.Words("en")
    return "\n".join(words(n.key, **n.fields) for n in found.notes)


def test_folders_of_every_generation(trained: Any, tmp_path: Path) -> None:
    for k, generation in enumerate(NAMES):
        trained(f"a{k}", "/x/yolov5n.yaml", k, [0.1, 0.30 + k * 0.01], generation)
        trained(f"b{k}", "C:\\x\\yolov5n_se.yaml", k, [0.1, 0.40 + k * 0.011], generation)
    out = report.folder(str(tmp_path / "out"))
    found = gathering.gather([str(tmp_path / "runs")], out)
    rows = verdict.judged(found)
    assert [r["config"] for r in rows] == ["yolov5n", "yolov5n_se"] and [r["finished"] for r in rows] == [4, 4]
    assert rows[0]["mAP50-95"] == pytest.approx(0.315) and rows[0]["mAP50"] == pytest.approx(0.63)
    assert rows[1]["verdict"] == statistics.BETTER and rows[1]["seeds"] == 4 and rows[1]["parameters"] is None
    text = said(found)
    assert "a0: has no best.pt" in text and "taken from the logs" in text and "host yolov5" in text and "lr0" not in text
    page = report.write(found, rows)
    read = Read(page.read_text(encoding="utf-8"))
    assert read.tags.count("svg") == 1, "there is nothing to draw but the training"
    svg = (out / "figures" / "training.svg").read_text(encoding="utf-8")
    for curve in ("curve-yolov5n", "curve-yolov5n_se", "loss-yolov5n", "loss-yolov5n_se"):
        assert svg.count(f'id="{curve}"') == 1, curve


def test_folders_that_are_damaged_or_partly_missing(trained: Any, tmp_path: Path) -> None:
    trained("good", "yolov5n.yaml", 0, [0.1, 0.3])
    half = trained("half", "yolov5n_se.yaml", 0, [0.1, 0.2, 0.4])
    log = (half / "results.csv").read_text(encoding="utf-8")
    (half / "results.csv").write_text(log[:-20], encoding="utf-8")
    (half / "weights" / "best.pt").write_bytes(b"PK\x03\x04 cut short")
    unread = trained("unread", "x.yaml", 0, [0.2, 0.2])
    (unread / "args.yaml").write_text("model: [yolov5n\nseed: {", encoding="utf-8")
    trained("nothing", None, None, None)
    seedless = trained("seedless", "yolov5n_eca.yaml", None, [0.1, 0.3])
    out = report.folder(str(tmp_path / "out"))
    found = gathering.gather([str(tmp_path / "runs" / n) for n in ("good", "half", "unread", "nothing", "seedless")], out)
    rows = {r["config"]: r for r in verdict.judged(found)}
    assert rows["yolov5n_se"]["mAP50-95"] == pytest.approx(0.2), "of the last whole line"
    assert rows["unread"]["mAP50-95"] == pytest.approx(0.2) and rows["nothing"]["mAP50-95"] is None
    text = said(found)
    for part in (
        f"{half}: 1 lines of results.csv are cut short", f"{half}: its log ends at epoch 2 of 3",
        f"{half}: best.pt cannot be opened", f"{unread}: left out: args.yaml", f"{unread}: has neither args.yaml nor opt.yaml",
        f"{seedless}: says no seed; counted as 0", "nothing: has no results.csv", "nothing: has no best.pt",
    ):  # fmt: skip
        assert part in text, part
    assert "Traceback" not in text
    Read(report.write(found, list(rows.values())).read_text(encoding="utf-8"))
    assert "Ablation on my, one seed." in (out / "ablation.tex").read_text(encoding="utf-8")
    trained("elsewhere", "yolov5n_eca.yaml", 1, [0.1, 0.2003], data="/gone/other.yaml", imgsz=96)
    trained("alike", "yolov5n_se.yaml", 1, [0.1, 0.3002])
    found = gathering.gather([str(tmp_path / "runs" / n) for n in ("good", "elsewhere", "alike")], out, validate=False)
    drawn = latency.Latency(5.0, 0.1, 1.0, 0.9, 1.1)
    found = dataclasses.replace(found, latency=dict.fromkeys(found.configs, drawn))
    text = report.write(found, verdict.judged(found)).with_suffix(".md").read_text(encoding="utf-8")
    assert "data: data sets that differ or are not named" in text and "the embedded data set" not in text
    assert "640 px" in text and "None" not in text, "sides differ, and what is timed is the default"
    assert text.count("**0.300**") == 2, "equal as printed: both are the best"
    with pytest.raises(FileError, match="none of the folders holds a figure"):
        gathering.gather([str(tmp_path / "runs" / "nothing")], out)


def test_grouping(trained: Any, tmp_path: Path) -> None:
    trained("exp", "yolov5n.yaml", 0, [0.1, 0.30])
    trained("exp2", "yolov5n.yaml", 0, [0.1, 0.31], batch=32)
    trained("exp10", "yolov5n_se.yaml", 0, [0.1, 0.35])
    trained("exp11", "yolov5n_se.yaml", 0, [0.1, 0.36])
    shutil.copytree(tmp_path / "runs" / "exp", tmp_path / "runs" / "exp12")
    found = gathering.gather([str(tmp_path / "runs")], tmp_path / "out", validate=False)
    assert [(r.config, r.seed) for r in found.records] == [("yolov5n", 0), ("yolov5n", 1), ("yolov5n_se", 0), ("yolov5n_se", 1)]
    text = said(found)
    assert "exp12: equal to the last digit" in text and "the same config and seed, other figures" in text
    assert "yolov5n-0, yolov5n_se-0, yolov5n_se-1: batch 16; yolov5n-1: batch 32" in text
    assert verdict.judged(found)[1]["difference"] == pytest.approx(0.05)
    words = [f"{n}={tmp_path / 'runs' / d}" for n, d in (("mine", "exp10"), ("mine", "exp11"), ("base", "exp"))]
    found = gathering.gather(words, tmp_path / "out", validate=False, baseline="base")
    assert list(found.configs) == ["base", "mine"]
    with pytest.raises(DataError, match=r"gone\.yaml"):
        gathering.gather(words, tmp_path / "out", data="gone.yaml")
    alike = [f"{n}={tmp_path / 'runs' / d}" for n, d in (("se, 1", "exp10"), ("se; 1", "exp11"))]
    with pytest.raises(UsageError, match="'se, 1' and 'se; 1' both come out as se__1"):
        gathering.gather(alike, tmp_path / "out", validate=False)
    nasty = folders.read(tmp_path / "runs" / "exp", "../../a b\x1b[2J")
    assert nasty.config == ".._.._a_b__2J", "it names a folder, and is printed"
    with pytest.raises(UsageError, match="there are mine, base"):
        gathering.gather(words, tmp_path / "out", validate=False, baseline="other")


def test_what_is_no_training_folder(tmp_path: Path, trained: Any) -> None:
    with pytest.raises(FileError, match="no such training folder"):
        folders.find([str(tmp_path / "gone")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="is no training folder"):
        folders.find([str(tmp_path / "empty")])
    place = trained("exp", "yolov5n.yaml", 0, [0.1])
    best = place / "weights" / "best.pt"
    best.write_bytes(b"")
    assert folders.find([str(best), str(place / "results.csv"), str(place)]) == [("", place)], "one folder, however named"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(FileError, match=r"holds files and no report.html"):
        report.folder(str(tmp_path / "mine"))


def test_a_study_by_the_command_line(study: Path, written: Any, tmp_path: Path, capsys: Any) -> None:
    """The report is the same each time, byte for byte."""
    before = {p: p.read_bytes() for p in (*study.glob("report.*"), study / "ablation.tex", *study.glob("figures/*"))}
    assert cli.main(["report", str(study), "--no-latency"]) == 0
    assert before == {p: p.read_bytes() for p in before}
    out = capsys.readouterr().out
    assert "- 1 of 9 runs have not finished: yolov5n_eca_neck-2." in out and "failed: RuntimeError: <oom>" in out
    assert "beside yolov5n:" in out and f"report: {study / 'report.html'}" in out and "1.02 (1.02 to 1.02)" in out
    assert cli.main(["report", str(study), str(study)]) == 2 and cli.main(["report", str(study), "--baseline", "x"]) == 2
    assert cli.main(["report", str(tmp_path)]) == 1
    broken = tmp_path / "broken"
    broken.mkdir()
    whole = yaml.safe_load((study / "study.yaml").read_text(encoding="utf-8"))
    without: dict[str, Any] = {"form": 1, "host": "ultralytics"}
    wrong: list[dict[str, Any]] = [{"configs": {}}, {"seeds": []}, {"seeds": "abc"}, {"seeds": [0, 0]}, {"arguments": {"imgsz": "abc"}}]
    for held in (without, *({**whole, **w} for w in wrong)):
        (broken / "study.yaml").write_text(yaml.safe_dump(held), encoding="utf-8")
        assert cli.main(["report", str(broken)]) == 1
        assert "is no plan of a study" in capsys.readouterr().err, held


def test_a_latency_file_that_somebody_changed_is_measured_again(tmp_path: Path) -> None:
    whole = {"milliseconds": 5, "spread": 0.1, "ratio": 1.0, "ratio_low": None, "ratio_high": 1.1, "reason": ""}
    cases: list[tuple[dict[str, Any], int]] = [(whole, 1), ({**whole, "ratio": "a"}, 0), ({"ratio": 1.0}, 0), ({"reason": "no ONNX"}, 1)]
    for held, count in cases:
        (tmp_path / latency.FILE).write_text(json.dumps({"configs": {"a": held}}), encoding="utf-8")
        assert len(latency.read(tmp_path)) == count, held


@pytest.mark.slow
def test_weights_are_validated_again_and_timed(tmp_path: Path) -> None:
    """Real checkpoints, though not trained: sizes, AP, curves and latency are of them; the second time they are kept."""
    from yolo_attn.training.shapes import Recipe, make

    data = make(tmp_path / "set", Recipe(train=2, val=10, size=64))
    code = """
import sys, yaml
from pathlib import Path
import torch, yolo_attn
from ultralytics import YOLO
for name in ("yolov5n", "yolov5n_se"):
    for seed in range(2):
        torch.manual_seed(seed)
        place = Path("runs", f"{name}{seed}"); (place / "weights").mkdir(parents=True)
        YOLO(f"{name}.yaml").save(place / "weights" / "best.pt")
        args = dict(task="detect", model=f"{name}.yaml", data=sys.argv[1], imgsz=64, seed=seed)
        (place / "args.yaml").write_text(yaml.safe_dump(args))
"""
    run_python("-c", code, str(data), cwd=tmp_path).ok()
    first = run_python("-m", "yolo_attn", "report", "runs", "--json", "--device", "cpu", cwd=tmp_path)
    held = json.loads(first.ok())
    base, se = held["rows"]
    assert base["finished"] == 2 and base["parameters"] == 2_654_816 and se["modules"] == ["SEAttention"]
    assert base["images"] == 10 and base["split"] == "val" and base["classes"].keys() == {"circle", "square", "triangle"}
    assert base["latency_ratio"] == 1 and 0 < se["latency_low"] <= se["latency_ratio"] <= se["latency_high"]
    assert "validated again by one evaluator for all: 4 runs." in held["notes"]
    assert (tmp_path / "report" / "figures" / "latency.svg").is_file()
    read = run_python("-m", "yolo_attn", "report", "runs", "--json", "--no-val", "--no-latency", "-o", "read", cwd=tmp_path)
    assert read.mistake().count("none of the folders holds a figure") == 1, "they hold no log"
    for k, place in enumerate(sorted((tmp_path / "runs").iterdir())):
        (place / "results.csv").write_text(log_text("8.4", [0.1 + k / 100]), encoding="utf-8")
    read = run_python("-m", "yolo_attn", "report", "runs", "--json", "--no-val", "--no-latency", "-o", "read", cwd=tmp_path)
    rows = json.loads(read.ok())["rows"]
    assert [(r["parameters"], r["modules"]) for r in rows] == [(r["parameters"], r["modules"]) for r in (base, se)]
    for place in (tmp_path / "runs").iterdir():
        (place / "results.csv").unlink()
    kept = tmp_path / "report" / "runs" / "yolov5n-0" / "measured.json"
    before = kept.stat().st_mtime_ns
    again = json.loads(run_python("-m", "yolo_attn", "report", "runs", "--json", cwd=tmp_path).ok())
    assert again["rows"] == held["rows"] and kept.stat().st_mtime_ns == before
