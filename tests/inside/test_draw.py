"""`yolo-attn draw`: every YAML draws without overlap, every arrow of the graph is there, and nothing runs through a box."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from conftest import Run

import yolo_attn
from yolo_attn.errors import FileError, UsageError
from yolo_attn.inside.draw import api, dot, layout, scene
from yolo_attn.inside.draw.compare import beside
from yolo_attn.inside.draw.layout import Arrow, Box, Layout
from yolo_attn.model_yaml import find
from yolo_attn.pages import fonts

Point = tuple[float, float]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", autouse=True)
def _hooked() -> None:
    yolo_attn.install()


def of(name: str, *, built: bool = False, imgsz: int = 640) -> scene.Scene:
    d, shown = scene.model_of(name)
    return scene.scene_of(d, shown, imgsz, built=built)


def yamls(package: str, folder: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return sorted(f for p in places for f in Path(p, folder).rglob("*.yaml") if f.name != "anchors.yaml")


def sides(points: list[Point]) -> Iterator[tuple[Point, Point]]:
    return zip(points, points[1:])


def overlap(a: Box, b: Box) -> bool:
    e = 1e-6
    return a.x < b.x + b.width - e and b.x < a.x + a.width - e and a.y < b.y + b.height - e and b.y < a.y + a.height - e


def through(p: Point, q: Point, b: Box) -> bool:
    return overlap(Box(None, min(p[0], q[0]), min(p[1], q[1]), abs(p[0] - q[0]), abs(p[1] - q[1])), b)


def on_edge(p: Point, b: Box) -> bool:
    inside = b.x - 1e-6 <= p[0] <= b.x + b.width + 1e-6 and b.y - 1e-6 <= p[1] <= b.y + b.height + 1e-6
    return inside and not b.holds(*p)


def shared(a: Arrow, b: Arrow) -> bool:
    """Whether arrows of different rows lie on one another."""
    for p, q in sides(a.points):
        for r, t in sides(b.points):
            for k in (0, 1):
                if abs(p[k] - q[k]) < 1e-9 and abs(r[k] - t[k]) < 1e-9 and abs(p[k] - r[k]) < 1e-6:
                    low = max(min(p[1 - k], q[1 - k]), min(r[1 - k], t[1 - k]))
                    if min(max(p[1 - k], q[1 - k]), max(r[1 - k], t[1 - k])) - low > 1e-6:
                        return True
    return False


def check(drawn: Layout) -> None:
    """No overlap, arrows at right angles from box to box around all others, and none upon another's."""
    boxes = {b.item: b for b in drawn.boxes}
    for i, a in enumerate(drawn.boxes):
        assert a.x >= 0 and a.y >= 0 and a.x + a.width <= drawn.width and a.y + a.height <= drawn.height
        assert not any(overlap(a, b) for b in drawn.boxes[i + 1 :])
    for i, arrow in enumerate(drawn.arrows):
        assert on_edge(arrow.points[0], boxes[arrow.link.source]) and on_edge(arrow.points[-1], boxes[arrow.link.target])
        for p, q in sides(arrow.points):
            assert abs(p[0] - q[0]) < 1e-9 or abs(p[1] - q[1]) < 1e-9
            crossed = [b.item.number if b.item else "image" for b in drawn.boxes if through(p, q, b)]
            assert not crossed, (arrow.link.target.number, crossed)
        assert not any(shared(arrow, b) for b in drawn.arrows[i + 1 :] if b.link.source is not arrow.link.source)


@pytest.mark.parametrize("where", ["kit", "ultralytics", "yolov5"])
def test_every_yaml_is_laid_out(where: str) -> None:
    files = {
        "kit": lambda: sorted(find.configs_folder().glob("*.yaml")),
        "ultralytics": lambda: yamls("ultralytics", "cfg/models"),
        "yolov5": lambda: yamls("yolov5", "models"),
    }[where]()
    if not files:
        pytest.skip(f"{where} is not installed")
    done: set[object] = set()
    for file in files:
        drawn = layout.layout_of(of(str(file)))
        d, _ = scene.model_of(str(file))
        rows = [*d["backbone"], *d["head"]]
        wanted = Counter((x if x >= 0 else i + x, i) for i, r in enumerate(rows) for x in (r[0] if isinstance(r[0], list) else [r[0]]))
        got = Counter((-1 if a.link.source is None else a.link.source.number, a.link.target.number) for a in drawn.arrows)
        assert got == wanted, file.name
        key = (tuple(got.items()), tuple((b.x, b.y, b.width) for b in drawn.boxes))
        if key not in done:  # many files differ in their widths alone
            done.add(key)
            check(drawn)
    assert len(done) > 5


@pytest.mark.parametrize("name", ["yolov5n_se.yaml", "yolo11n-seg.yaml"])
def test_channels_and_sizes_are_those_of_the_built_model(name: str) -> None:
    from ultralytics import YOLO

    model = YOLO(name).model.eval()
    seen: dict[int, tuple[int, ...]] = {}
    hooks = [m.register_forward_hook(lambda m, _, y: seen.__setitem__(m.i, tuple(y.shape[1:]))) for m in model.model[:-1]]
    with torch.no_grad():
        model(torch.zeros(1, 3, 128, 128))
    for hook in hooks:
        hook.remove()
    shapes = {i.number: (i.channels, *(i.size or ())) for i in of(name, built=True, imgsz=128).items[:-1]}
    assert shapes == seen
    inferred = {i.number: (i.channels, *(i.size or ())) for i in of(name, imgsz=128).items[:-1]}
    assert inferred == seen  # what the rows tell agrees, where no layer is built


def svg_boxes(root: ElementTree.Element) -> dict[str, Box]:
    found = {}
    for group in root.iter(f"{SVG}g"):
        name = group.get("id") or ""
        path = group.find(f"{SVG}path")
        if name.startswith("box-") and path is not None:
            numbers = [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?", path.get("d") or "")]
            xs, ys = numbers[::2], numbers[1::2]
            found[name] = Box(None, min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return found


def svg_arrows(root: ElementTree.Element) -> list[tuple[str, str, list[Point]]]:
    found = []
    for group in root.iter(f"{SVG}g"):
        match = re.fullmatch(r"arrow-\d+-from-([\w-]+)-to-([\w-]+)", group.get("id") or "")
        path = group.find(f"{SVG}path")
        if match and path is not None:
            numbers = [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?", path.get("d") or "")]
            found.append((match[1], match[2], list(zip(numbers[::2], numbers[1::2]))))
    return found


@pytest.mark.parametrize("models", [["yolov5n_se.yaml"], ["yolov8n.yaml", "yolo11n.yaml"]])
def test_the_svg_holds_every_box_and_arrow(models: list[str], tmp_path: Path) -> None:
    file = tmp_path / "model.svg"
    drawn = api.draw_models(models, file, imgsz=320)
    root = ElementTree.fromstring(file.read_bytes())
    boxes, arrows = svg_boxes(root), svg_arrows(root)
    names = {"box-image", *(f"box-{'removed-' if i.state == 'removed' else ''}{i.number}" for i in drawn.items)}
    assert boxes.keys() == names
    ends = Counter((a, b) for a, b, _ in arrows)
    assert ends == Counter(("image" if li.source is None else _name(li.source), _name(li.target)) for li in drawn.links)
    values = list(boxes.values())
    assert not any(overlap(a, b) for i, a in enumerate(values) for b in values[i + 1 :])
    for source, target, points in arrows:
        for p, q in sides(points):
            others = [n for n, b in boxes.items() if n not in (f"box-{source}", f"box-{target}") and through(p, q, b)]
            assert not others, (source, target, others)
    words = "".join(t for e in root.iter() for t in e.itertext())
    assert "Detect" in words and "20×20" in words and "P3" in words  # text is text


def _name(item: scene.Item) -> str:
    return f"removed-{item.number}" if item.state == "removed" else str(item.number)


def test_equal_drawings_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        api.draw_models(["yolov5n.yaml"], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_two_models_beside_each_other() -> None:
    plain, se, c3se, bifpn = (of(n) for n in ("yolov5n.yaml", "yolov5n_se.yaml", "yolov5n_c3se.yaml", "yolov5n_bifpn.yaml"))
    added = beside(plain, se)
    assert [i.number for i in added.items if i.state == "added"] == [3, 6, 9, 12] and not any(li.state for li in added.links)
    removed = beside(se, plain)
    assert [i.number for i in removed.items if i.state] == [3, 6, 9, 12] and {i.state for i in removed.items} == {"", "removed"}
    assert all(li.state == "removed" for li in removed.links if li.state) and removed.items[-1].module == "Detect"
    changed = beside(plain, c3se)
    assert [(i.module, i.was) for i in changed.items if i.state] == [("C3SE", "C3")] * 4
    rewired = beside(plain, bifpn)
    assert [(li.source.number, li.target.number) for li in rewired.links if li.source and li.state == "added"] == [(6, 19)]
    assert not any(i.state for i in beside(plain, plain).items) and not any(li.state for li in beside(plain, plain).links)
    for drawn in (added, removed, changed, rewired):
        check(layout.layout_of(drawn))


def test_rows_that_differ_in_their_arguments_alone_are_changed(tmp_path: Path) -> None:
    """A kernel, a reduction, a shortcut and the number of classes make another model, at the same widths."""
    text = find.require("yolov5n_se.yaml").read_text(encoding="utf-8")
    assert "[512, 3, 2]" in text and "[1024, 5]" in text
    (tmp_path / "an.yaml").write_text(text)
    other = text.replace("[512, 3, 2]", "[512, 5, 2]").replace("[1024, 5]", "[1024, 9]").replace("nc: 80", "nc: 8")
    (tmp_path / "bn.yaml").write_text(other + "channels: 4\n")
    a, b = (of(str(tmp_path / name)) for name in ("an.yaml", "bn.yaml"))
    both = beside(a, b)
    found = {i.module: i.was for i in both.items if i.state}
    assert found == {"Conv": "Conv [512, 3, 2]", "SPPF": "SPPF [1024, 5]", "Detect": "Detect [80]"}
    assert both.channels == 4 and not any(link.state for link in both.links)
    assert "was SPPF [1024, 5]" in dot.dot_of(both) and "4 · 640×640" in dot.dot_of(both)
    assert not any(i.state for i in beside(a, of(str(tmp_path / "an.yaml"))).items)


def test_an_ending_in_capitals_is_the_file_that_is_named_and_is_not_overwritten(cli: Callable[..., Run], tmp_path: Path) -> None:
    run = cli("draw", "yolov5n_se.yaml", "-o", tmp_path / "a.SVG")
    assert run.code == 0 and "a.svg: " in run.out and (tmp_path / "a.svg").is_file()
    with pytest.raises(FileError, match="a.svg exists"):
        api.draw_models(["yolov5n_se.yaml"], tmp_path / "a.SVG")


@pytest.mark.parametrize("pair", ["yolov8n.yaml yolov8n-seg.yaml", "yolov5n_se.yaml seresnet50-cls.yaml", "rtdetr-l.yaml yolov5n.yaml", "yolov9e.yaml yolov10n.yaml"])
def test_models_with_little_in_common_beside_each_other(pair: str) -> None:
    base, other = map(of, pair.split())
    drawn = beside(base, other)
    assert [i.number for i in drawn.items if i.state != "removed"] == [i.number for i in other.items]
    assert len([i for i in drawn.items if i.state == "removed"]) + len(other.items) == len(drawn.items)
    assert drawn.items[-1].was == (base.items[-1].module if base.items[-1].module != other.items[-1].module else "")
    kept = Counter((li.source.number if li.source else -1, li.target.number) for li in drawn.links if li.state != "removed")
    assert kept == Counter((li.source.number if li.source else -1, li.target.number) for li in other.links)
    check(layout.layout_of(drawn))


def test_graphviz_gets_every_row_and_arrow() -> None:
    drawn = of("yolov5n_se.yaml")
    text = dot.dot_of(drawn)
    assert len(re.findall(r" -> ", text)) == len(drawn.links) == 35
    assert len(re.findall(r'^ *"box-\w+" \[', text, re.MULTILINE)) == len(drawn.items) + 1
    assert text.count("{") == text.count("}") and '"box-9" -> "box-10"' in text


def test_chinese_labels_need_a_font_that_has_them(tmp_path: Path) -> None:
    file = tmp_path / "zh.svg"
    if fonts.find("注意力颈部") is None:
        with pytest.raises(FileError, match="no font of this machine has the characters"):
            api.draw_models(["yolov5n_se.yaml"], file, language="zh")
        assert not file.exists()
        return
    api.draw_models(["yolov5n_se.yaml"], file, language="zh")
    assert "骨干网络" in file.read_text(encoding="utf-8") and "注意力" in file.read_text(encoding="utf-8")


def test_a_checkpoint_is_drawn_as_its_yaml(tmp_path: Path) -> None:
    from ultralytics import YOLO

    YOLO("yolov5n_se.yaml").save(tmp_path / "best.pt")
    drawn = api.draw_models([str(tmp_path / "best.pt")], tmp_path / "best.png")
    assert [i.module for i in drawn.items] == [i.module for i in of("yolov5n_se.yaml").items]
    assert (tmp_path / "best.png").read_bytes()[:4] == b"\x89PNG"


def test_wrong_arguments(tmp_path: Path) -> None:
    (tmp_path / "there.svg").write_text("x")
    for models, output, error, said in (
        (["yolov5n.yaml"], "a.jpg", UsageError, r"\.svg, \.pdf, \.png, \.dot"),
        (["yolov5n.yaml"] * 3, "a.svg", UsageError, "3 were given"),
        (["yolov5n.yaml"], "there.svg", FileError, "exists. Choose another name, or add --force"),
        (["yolov5n.yaml"], "no/a.svg", FileError, "does not exist"),
    ):
        with pytest.raises(error, match=said):
            api.draw_models(models, tmp_path / output)


def test_the_command(cli: Callable[..., Run], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    shutil.copy(find.require("yolov5n.yaml"), mine)
    mine.write_text(mine.read_text().replace("C3", "C33", 1))
    done = cli("draw", "yolov5n.yaml", "yolov5n_se.yaml", "-o", "a.pdf")
    assert "29 rows, 35 arrows, 4 added" in done.ok() and (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"
    told = cli("draw", "mine.yaml", "-o", "b.svg").mistake()
    assert re.search(r"mine\.yaml, row 2 .*no module is called 'C33'", told) and told.count("\n") == 1
    assert not (tmp_path / "b.svg").exists()
