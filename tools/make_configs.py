"""Write model_cfgs/*.yaml: `python tools/make_configs.py`. With --check, only report stale files.

Every file is a plain detector's YAML with attention inserted by :func:`yolo_attn.insert`, under its own header.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import block_configs

FOLDER = Path(__file__).resolve().parent.parent / "model_cfgs"

# Short name in file names: name in rows.
SHORT = {
    "se": "SEAttention",
    "eca": "ECA",
    "cbam": "CBAM",
    "ca": "CoordAtt",
    "simam": "SimAM",
    "sa": "ShuffleAttention",
    "ema": "EMAttention",
    "gam": "GAM",
    "triplet": "TripletAttention",
    "gc": "GC",
}
BACKBONE = "after each feature block of the backbone"
NECK = "after the head blocks that Detect reads; the path to the next level reads it too"
PLACES = {"": ("backbone", BACKBONE), "_neck": ("neck", NECK)}


def recipes() -> dict[str, tuple[str, str, str, str]]:
    """Return, by file name: base, module, placement, placement in words."""
    from yolo_attn.registry.registry import find

    out = {}
    for short, module in SHORT.items():
        if find(module) is None:
            continue
        for suffix, (where, words) in PLACES.items():
            out[f"yolov5_{short}{suffix}.yaml"] = ("yolov5", module, where, words)
            if short in ("se", "eca"):
                out[f"yolov5-p6_{short}{suffix}.yaml"] = ("yolov5-p6", module, where, words)
    p5 = "after the last head block, which Detect reads at P5; the placement of many tutorials"
    out["yolov5_se_p5.yaml"] = ("yolov5", "SEAttention", "neck-P5", p5)
    out["yolov5-p6_se_p6.yaml"] = ("yolov5-p6", "SEAttention", "neck-P6", p5.replace("P5", "P6"))
    for base in ("yolov8", "yolo11"):
        out[f"{base}_se.yaml"] = (base, "SEAttention", "backbone", BACKBONE)
    return out


def render(base: str, module: str, where: str, words: str) -> str:
    """Return the text of one file."""
    import yolo_attn
    from yolo_attn.registry.registry import get_entry

    entry = get_entry(module)
    source = FOLDER / f"{base}.yaml"
    plain = source.read_text(encoding="utf-8")
    model = plain[2 : plain.index(",")]
    header = (
        f"# {model} with {entry.name} ({entry.paper}{', arXiv:' + entry.arxiv if entry.arxiv else ''})\n"
        f"# {words}.\n"
        f"# Made by: yolo-attn insert {base}.yaml --module {module} --where {where}\n"
    )
    body = plain[plain.index("\nnc:") :]
    return yolo_attn.insert(header + body, module, where=where)


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only exit with 1 if a file is missing, stale or left over")
    check = parser.parse_args().check
    stale = []
    made = recipes()
    wanted = {**{name: render(*recipe) for name, recipe in made.items()}, **block_configs.files()}
    for name, text in wanted.items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    bases = {f"{r[0]}.yaml" for r in made.values()}
    stale += [f"{p.name} (left over)" for p in FOLDER.glob("*.yaml") if p.name not in wanted and p.name not in bases]
    print(f"{len(wanted)} files; {'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
