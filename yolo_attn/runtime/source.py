"""Where pictures come from: one file, a folder, a pattern, a video; unreadable ones are reported, not fatal."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError

__all__ = ["IMAGES", "VIDEOS", "Frame", "Source", "read_image"]

IMAGES = (".bmp", ".dib", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv", ".ts")


@dataclass(frozen=True)
class Frame:
    """One picture: from which file, the how-manieth frame of a video (None for a picture), and its pixels."""

    path: Path
    index: int | None
    image: np.ndarray
    fps: float = 0.0


def read_image(path: Path) -> np.ndarray | None:
    """Read a picture as (H, W, 3) BGR uint8, turned as its EXIF says; None where OpenCV cannot."""
    try:
        data = np.fromfile(path, dtype=np.uint8)  # unlike imread, opens any name on every system
    except OSError:
        return None
    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        return None


class Source:
    """Pictures and frames of videos, in order of name.

    Args:
        source: A picture, a folder (its files, not its subfolders), a pattern such as ``shots/*.jpg``, a video, or
            a ``.txt`` that lists pictures, one a line.

    Attributes:
        files: What will be read.
        skipped: Files that could not be read, so far.

    Raises:
        DataError: Nothing there, or of no kind that can be read.
    """

    def __init__(self, source: str) -> None:
        path = Path(source).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES + VIDEOS)
            if not files:
                raise DataError(f"{path}: the folder holds no pictures or videos (subfolders are not searched)")
        elif path.is_file() and path.suffix.lower() == ".txt":
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            files = [p if p.is_absolute() else path.parent / p for p in (Path(line) for line in lines if line)]
            if not files:
                raise DataError(f"{path}: lists no pictures")
        elif path.is_file():
            if path.suffix.lower() not in IMAGES + VIDEOS and read_image(path) is None:
                raise DataError(f"{path}: is neither a picture nor a video that OpenCV reads")
            files = [path]
        elif glob.has_magic(source):
            files = sorted(
                Path(p) for p in glob.glob(source, recursive=True) if Path(p).suffix.lower() in IMAGES + VIDEOS
            )
            if not files:
                raise DataError(f"nothing matches {source} (looked in {Path.cwd()})")
        else:
            raise DataError(f"source not found: {source} (looked in {Path.cwd()})")
        self.files = files
        self.skipped: list[Path] = []

    def __iter__(self) -> Iterator[Frame]:
        for path in self.files:
            if path.suffix.lower() in VIDEOS:
                yield from self._video(path)
                continue
            image = read_image(path)
            if image is None:
                self.skipped.append(path)
                continue
            yield Frame(path, None, image)

    def _video(self, path: Path) -> Iterator[Frame]:
        video = cv2.VideoCapture(str(path))
        try:
            fps = video.get(cv2.CAP_PROP_FPS)
            index = 0
            while True:
                good, image = video.read()
                if not good:
                    break
                yield Frame(path, index, image, fps if 0 < fps < 1000 else 25.0)
                index += 1
            if index == 0:
                self.skipped.append(path)
        finally:
            video.release()
