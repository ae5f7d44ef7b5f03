"""Statistics of `compare`: against the textbook, against pycocotools, and by simulation."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from yolo_attn.evaluation import images
from yolo_attn.study.statistics import (
    BETTER,
    SAME,
    UNTOLD,
    WORSE,
    compare,
    family,
    holm,
    seeds_to_tell,
    spread_test,
)


def load_benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_statistics", ROOT / "benchmarks" / "study_statistics.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbered(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


# -- over seeds


def test_two_configs_are_the_paired_t_test() -> None:
    from scipy import stats

    a, b = [0.580, 0.585, 0.578], [0.583, 0.591, 0.590]
    (row,) = compare({"a": numbered(*a), "b": numbered(*b)}, "a")
    textbook = stats.ttest_rel(b, a)
    low, high = textbook.confidence_interval(0.95)
    assert row.p == pytest.approx(textbook.pvalue) == row.holm
    assert (row.low, row.high) == pytest.approx((low, high))
    assert row.verdict == SAME and row.seeds == 3


def test_the_readmes_row() -> None:
    """ECA on BCCD, ahead with each seed: p = 0.118, and the interval holds 0."""
    (row,) = compare({"base": numbered(0, 0, 0), "eca": numbered(0.003, 0.006, 0.012)}, "base")
    assert (round(row.p, 3), round(row.low, 3), round(row.high, 3)) == (0.118, -0.004, 0.018)
    assert row.verdict == SAME and row.seeds_to_tell is not None and row.seeds_to_tell > 3


def test_pooled_residual_is_that_of_the_randomised_block_design() -> None:
    from scipy import stats

    table = np.random.default_rng(0).standard_normal((5, 6)) + np.arange(6) * 3.0
    assert spread_test(table).min() > 0.1 and spread_test(table)[0] > 0.5, "choose a seed whose spreads are equal enough"
    tests = family(table)
    assert {t.method for t in tests} == {"pooled residual"} and {t.df for t in tests} == {20}
    grand = table.mean()
    squares = ((table - table.mean(1, keepdims=True) - table.mean(0) + grand) ** 2).sum()
    t = (table[1].mean() - table[0].mean()) / math.sqrt(2 * squares / 20 / 6)
    assert tests[0].p == pytest.approx(2 * stats.t.sf(abs(t), 20))


def test_a_spread_out_of_line_is_judged_on_its_own() -> None:
    from scipy import stats

    rng = np.random.default_rng(4)
    table = rng.standard_normal((5, 6))
    table[3] *= 30
    tests = family(table)
    assert tests[2].method == "paired t" and tests[2].p == pytest.approx(stats.ttest_rel(table[3], table[0]).pvalue)
    assert tests[0].method == "pooled residual" and tests[0].df == 15, "the others' residual is without it"
    table = rng.standard_normal((5, 6))
    table[0] *= 30  # the baseline's spread is in every difference
    assert {t.method for t in family(table)} == {"paired t"}


def test_two_names_of_one_config() -> None:
    """Trained with the same seed they are equal to the last bit: no difference, and no residual that counts twice."""
    rng = np.random.default_rng(0)
    base, other = rng.standard_normal(4), rng.standard_normal(4)
    rows = compare({"a": numbered(*base), "again": numbered(*base), "b": numbered(*other)}, "a")
    assert rows[0].verdict == SAME and rows[0].p == 1 and (rows[0].low, rows[0].high) == (0, 0)
    assert rows[1].method == "paired t", "three configs, but two different ones"


def test_too_little_to_tell() -> None:
    (row,) = compare({"a": numbered(0.5), "b": numbered(0.9)}, "a")
    assert row.verdict == UNTOLD and "one seed" in row.why and math.isnan(row.p) and row.difference == pytest.approx(0.4)
    (row,) = compare({"a": numbered(0.5, 0.6), "b": {}}, "a")
    assert row.verdict == UNTOLD and "no seed" in row.why
    (row,) = compare({"a": numbered(0, 0, 0), "b": numbered(0, 0, 0)}, "a")
    assert row.verdict == UNTOLD and "more epochs" in row.why, "nothing found is nothing compared"
    (row,) = compare({"a": numbered(0.5, 0.5, 0.5), "b": numbered(0.6, 0.6, 0.6)}, "a")
    assert row.verdict == UNTOLD and "same for every seed" in row.why, "no spread at all is no proof of an effect"


def test_a_seed_that_failed_is_left_out() -> None:
    base = numbered(0.50, 0.51, 0.52, 0.515)
    rows = compare({"a": base, "b": {0: 0.40, 2: 0.43, 3: 0.42}, "c": numbered(0.6, 0.612, 0.62, 0.61)}, "a")
    assert rows[0].seeds == 3 and rows[0].difference == pytest.approx((-0.10 - 0.09 - 0.095) / 3)
    assert rows[0].verdict == WORSE and rows[1].verdict == BETTER and rows[1].seeds == 4
    (row,) = compare({"a": {**base, 1: math.nan}, "b": numbered(0.4, 0.9, 0.43, 0.42)}, "a")
    assert row.seeds == 3, "a figure that is no number does not count"


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, math.nan, 0.01])[::2] == pytest.approx([0.04, 0.02])
    assert holm([0.04, math.nan, 0.01], tests=3)[::2] == pytest.approx([0.08, 0.03])


@pytest.mark.parametrize("last", [0.001, 0.02, 0.9])
def test_no_corrected_p_grows_once_the_study_is_whole(last: float) -> None:
    before, after = holm([0.04, math.nan, 0.01], tests=3), holm([0.04, last, 0.01])
    assert all(a <= b for a, b in zip(after[::2], before[::2]))


def test_a_config_that_has_not_finished_counts() -> None:
    """Two of three have finished: what they are corrected for is what was planned."""
    values = {"base": {0: 0.50, 1: 0.52, 2: 0.51}, "a": {0: 0.53, 1: 0.56, 2: 0.535}, "b": {0: 0.51, 1: 0.5, 2: 0.53}}
    alone = {c.name: c for c in compare(values, "base")}
    waiting = {c.name: c for c in compare({**values, "c": {}}, "base")}
    assert waiting["a"].p == alone["a"].p and waiting["a"].holm == pytest.approx(1.5 * alone["a"].holm)
    assert waiting["c"].verdict == "cannot tell"


def test_seeds_to_tell() -> None:
    """Against the power of the paired t test by simulation."""
    from scipy import stats

    n = seeds_to_tell(1.0, 1.0)
    assert n == 10
    assert seeds_to_tell(0.0, 1.0) is None and seeds_to_tell(1e-4, 1.0) is None
    assert seeds_to_tell(5.0, 0.0) == 2 and (seeds_to_tell(1.0, 1.0, tests=4) or 0) > n
    rng = np.random.default_rng(0)
    seen = [(stats.ttest_1samp(rng.normal(1, 1, (4000, k)), 0, axis=1).pvalue < 0.05).mean() for k in (n - 1, n)]
    assert seen[0] < 0.8 + 0.02 and seen[1] > 0.8 - 0.02


def test_false_verdicts_and_power() -> None:
    """Reduced from `benchmarks/study_statistics.py`: bounds that always pooling, or no correction, would not keep."""
    b = load_benchmark()
    for name in ("equal spreads", "a candidate of twice the spread", "a baseline of twice the spread"):
        assert 0.03 < b.family_wise(b.by_the_kit, b.SPREADS[name], 3, 1500) < 0.07, name
    kit, paired = (b.power(judge, 5, 3, 800, 1.5) for judge in (b.by_the_kit, b.by_paired_t))
    assert kit > paired + 0.04
    assert 0.93 < b.covered_over_seeds(5, 3, 800) < 0.97


def test_bounds_are_kept_by_no_wrong_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would say of always pooling, and of a bootstrap over three seeds."""
    b = load_benchmark()
    from yolo_attn.study import statistics

    with monkeypatch.context() as patch:
        for level in ("NOT_IN_POOL", "ON_ITS_OWN", "BASELINE"):
            patch.setattr(statistics, level, 0.0)
        assert b.family_wise(b.by_the_kit, b.SPREADS["a baseline of twice the spread"], 3, 1500) > 0.07

    def bootstrap(table: Any) -> list[float]:
        rng = np.random.default_rng(0)
        steps = table[1:] - table[0]
        means = steps[:, rng.integers(0, steps.shape[1], (200, steps.shape[1]))].mean(2)
        return [2 * min((m <= 0).mean(), (m >= 0).mean()) for m in means]

    assert b.family_wise(bootstrap, [1, 1], 3, 300) > 0.15


# -- over images


def scene(count: int = 40, classes: int = 3, seed: int = 0) -> tuple[list[Any], list[Any]]:
    """Objects and detections of a middling detector; confidences of one decimal, so that many are equal."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(count):
        n, m = rng.integers(0, 6, 2)
        corner = rng.uniform(0, 200, (n, 2))
        t = np.c_[corner, corner + rng.uniform(20, 150, (n, 2)), rng.integers(0, classes, n)]
        kept = t[rng.random(n) < 0.8]
        right = np.c_[kept[:, :4] + rng.normal(0, 3, (len(kept), 4)), rng.random(len(kept)).round(1), kept[:, 4]]
        corner = rng.uniform(0, 200, (m, 2))
        wrong = np.c_[corner, corner + rng.uniform(20, 90, (m, 2)), rng.random(m).round(1) * 0.7, rng.integers(0, classes, m)]
        truth.append(t)
        found.append(np.r_[right, wrong])
    return truth, found


def by_pycocotools(truth: list[Any], found: list[Any], classes: int) -> Any:
    """The twelve figures of COCO's own code."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    annotations: list[dict[str, Any]] = []
    results = []
    for i, (t, d) in enumerate(zip(truth, found)):
        for x1, y1, x2, y2, c in t:
            box = [x1, y1, x2 - x1, y2 - y1]
            entry = {"image_id": i + 1, "category_id": int(c) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry})
        for x1, y1, x2, y2, p, c in d:
            results.append({"image_id": i + 1, "category_id": int(c) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": p})
    with contextlib.redirect_stdout(io.StringIO()):
        api = coco.COCO()
        api.dataset = {
            "images": [{"id": i + 1} for i in range(len(truth))],
            "categories": [{"id": c + 1} for c in range(classes)],
            "annotations": annotations,
        }
        api.createIndex()
        e = evaluation.COCOeval(api, api.loadRes(results), "bbox")
        e.evaluate()
        e.accumulate()
        e.summarize()
    return e.stats


@pytest.mark.parametrize("seed", range(3))
def test_matches_give_cocos_ap(seed: int) -> None:
    truth, found = scene(seed=seed)
    got = images.ap(images.match(truth, found, 3), np.ones((1, len(truth))))[0]
    stats = by_pycocotools(truth, found, 3)
    assert got.mean() == pytest.approx(stats[0], abs=1e-6)
    assert got[0].mean() == pytest.approx(stats[1], abs=1e-6) and got[5].mean() == pytest.approx(stats[2], abs=1e-6)


def test_an_image_that_is_drawn_twice_counts_twice() -> None:
    truth, found = scene(20)
    weights = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), 5)
    got = images.ap(images.match(truth, found, 3), weights)
    for row, w in zip(got, weights):
        drawn = np.repeat(np.arange(20), w)
        again = images.match([truth[i] for i in drawn], [found[i] for i in drawn], 3)
        # Among equal confidences the order of images is another one.
        assert np.nanmean(images.ap(again, np.ones((1, len(drawn))))) == pytest.approx(np.nanmean(row), abs=0.02)


def test_a_class_without_objects_does_not_count() -> None:
    truth, found = scene(30, classes=2)
    two, three = (images.ap(images.match(truth, found, k), np.ones((1, 30)))[0] for k in (2, 3))
    assert np.isnan(three[:, 2]).all() and np.nanmean(three) == pytest.approx(two.mean())
    assert images.interval(images.match(truth, found, 3), sets=200) is not None
    assert images.interval(images.match(truth[:5], found[:5], 3)) is None, "five images say nothing"


@pytest.mark.slow
def test_the_interval_over_images_covers() -> None:
    """Reduced from `benchmarks/study_statistics.py`; without what is drawn twice it would not be kept."""
    b = load_benchmark()
    assert 0.90 < b.covered_over_images(120) <= 0.99
    assert 0.90 < b.covered_over_images(120, difference=True) <= 0.99
    assert b.covered_over_images(60, distinct=True) < 0.90
