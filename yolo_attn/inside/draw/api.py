"""Draw one model, or two beside each other, into a file."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import FileError, UsageError
from ...files import write_text
from ...pages.texts import check_language
from .compare import beside
from .dot import dot_of
from .layout import layout_of
from .picture import KINDS, draw
from .scene import Scene, model_of, scene_of

__all__ = ["ENDINGS", "draw_models", "target_of"]

ENDINGS = (*KINDS, "dot")


def target_of(output: str | os.PathLike[str]) -> Path:
    """Return the file that is written: its ending is lower case, as the figures are saved."""
    file = Path(os.path.expanduser(output))
    return file.with_suffix(file.suffix.lower()) if file.suffix else file


def draw_models(
    models: list[str], output: str | os.PathLike[str], *, imgsz: int = 640, language: str = "en", force: bool = False
) -> Scene:
    """Draw a model, or the second of two with what distinguishes it from the first.

    Args:
        models: One or two model YAMLs, checkpoints or bundles.
        output: The file; its ending chooses svg, pdf, png or dot.
        imgsz: Side of the image in pixels, for the sizes in the boxes.
        language: ``en`` or ``zh``.
        force: Overwrite the file.

    Returns:
        What was drawn.

    Raises:
        UsageError: The ending or the language is none of these, or there are more than two models.
        ConfigError: A YAML is not valid; a row that cannot be built is named.
        FileError: The file exists or cannot be written, or no font has the characters.
    """
    file = target_of(output)
    check_language(language)
    if file.suffix[1:].lower() not in ENDINGS:
        raise UsageError(f"{output}: the ending chooses the kind of picture: .{', .'.join(ENDINGS)}")
    if not 1 <= len(models) <= 2:
        raise UsageError(f"one model is drawn, or two beside each other; {len(models)} were given")
    if file.exists() and not force:
        raise FileError(f"{file} exists. Choose another name, or add --force to overwrite it.")
    if not file.absolute().parent.is_dir():
        raise FileError(f"the folder {file.parent} does not exist")
    scenes = [scene_of(*model_of(m), imgsz) for m in models]
    scene = scenes[0] if len(scenes) == 1 else beside(*scenes)
    if file.suffix.lower() == ".dot":
        write_text(file, dot_of(scene, language))
    else:
        draw(layout_of(scene), file, language)
    return scene
