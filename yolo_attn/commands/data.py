"""`yolo-attn data`: generate the embedded data set."""

from __future__ import annotations

import argparse

from ..training.shapes import Recipe, make


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("folder", nargs="?", help="folder to write it to (default: the kit's cache)")
    parser.add_argument(
        "--train", type=int, default=Recipe.train, metavar="N", help="number of training images (default %(default)s)"
    )
    parser.add_argument(
        "--val", type=int, default=Recipe.val, metavar="N", help="number of validation images (default %(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=Recipe.size, metavar="N", help="side of the images in pixels (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed, metavar="N", help="random seed (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Generate the data set and print the path of its YAML."""
    print(make(args.folder, Recipe(args.train, args.val, args.size, args.seed)))
    return 0
