"""Where pictures come from: files, folders, patterns, videos, cameras; unreadable ones are reported, not fatal."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError
from ..files import expand, read_text

__all__ = ["IMAGES", "VIDEOS", "Frame", "Source", "read_image"]

IMAGES = (".bmp", ".dib", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv", ".ts")


@dataclass(frozen=True)
class Frame:
    """One picture.

    Args:
        path: The file; for a camera or stream a name that a file may have.
        index: The how-manieth frame of a video, from 0; None for a picture.
        image: (H, W, 3) BGR uint8.
        fps: Frames a second of the video.
        frames: How many frames the video says to have; 0 where that is unknown.
    """

    path: Path
    index: int | None
    image: np.ndarray
    fps: float = 0.0
    frames: int = 0


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
    """Pictures and frames of videos, in the order given, those of a folder or pattern in order of name.

    Args:
        sources: Each a picture, a folder (its files, not its subfolders), a pattern such as ``shots/*.jpg``, a video, a
            ``.txt`` that lists pictures, one a line, the number of a camera, or the address of a stream.

    Attributes:
        files: What will be read.
        skipped: Files that could not be read, so far.

    Raises:
        DataError: Nothing there, or of no kind that can be read.
    """

    def __init__(self, *sources: str) -> None:
        self._streams: dict[Path, int | str] = {}
        self.files = [file for source in sources for file in self._found(source)]
        self.skipped: list[Path] = []

    def _found(self, source: str) -> list[Path]:
        path = expand(source)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES + VIDEOS)
            if not files:
                raise DataError(f"{path}: the folder holds no pictures or videos (subfolders are not searched)")
            return files
        if path.is_file():
            return _listed(path) if path.suffix.lower() == ".txt" else [_checked(path)]
        if source.isdigit() or "://" in source:
            name = Path(f"camera{source}" if source.isdigit() else re.sub(r"\W+", "_", source))
            self._streams[name] = int(source) if source.isdigit() else source
            return [name]
        if glob.has_magic(source):
            matches = map(Path, glob.glob(source, recursive=True))
            files = sorted(p for p in matches if p.suffix.lower() in IMAGES + VIDEOS)
            if not files:
                raise DataError(f"nothing matches {source} (looked in {Path.cwd()})")
            return files
        raise DataError(f"source not found: {source} (looked in {Path.cwd()})")

    def __iter__(self) -> Iterator[Frame]:
        for path in self.files:
            if path in self._streams or path.suffix.lower() in VIDEOS:
                yield from self._video(path)
                continue
            image = read_image(path)
            if image is None:
                self.skipped.append(path)
                continue
            yield Frame(path, None, image)

    def _video(self, path: Path) -> Iterator[Frame]:
        stream = self._streams.get(path)
        video = cv2.VideoCapture(str(path) if stream is None else stream)
        try:
            if stream is not None and not video.isOpened():
                kind = "camera" if isinstance(stream, int) else "stream"
                raise DataError(f"{kind} {stream} cannot be opened")
            fps = video.get(cv2.CAP_PROP_FPS)
            frames = 0 if stream is not None else max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            index = 0
            while True:
                good, image = video.read()
                if not good:
                    break
                yield Frame(path, index, image, fps if 0 < fps < 1000 else 25.0, frames)
                index += 1
            if index == 0:
                self.skipped.append(path)
        finally:
            video.release()


def _listed(path: Path) -> list[Path]:
    """Return the files that a text file lists; relative ones stand beside it."""
    lines = [line.strip() for line in read_text(path, DataError).splitlines()]
    files = [path.parent / line for line in lines if line]
    if not files:
        raise DataError(f"{path}: lists no pictures")
    return files


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in IMAGES + VIDEOS and read_image(path) is None:
        raise DataError(f"{path}: is neither a picture nor a video that OpenCV reads")
    return path
