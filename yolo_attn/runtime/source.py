"""Sources of images: files, folders, globs, videos, cameras; unreadable files are reported and skipped."""

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
    """One image.

    Args:
        path: The file; for a camera or stream, a name that is valid for a file.
        index: Frame index, from 0; None for an image.
        image: (H, W, 3) BGR uint8.
        fps: Frames per second of the video.
        frames: Number of frames that the video's header gives; 0 if unknown.
    """

    path: Path
    index: int | None
    image: np.ndarray
    fps: float = 0.0
    frames: int = 0


def read_image(path: Path) -> np.ndarray | None:
    """Read an image as (H, W, 3) BGR uint8, rotated according to its EXIF data; None if OpenCV cannot read it."""
    try:
        data = np.fromfile(path, dtype=np.uint8)  # unlike imread, opens any path on every system
    except OSError:
        return None
    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        return None


class Source:
    """Images and frames of videos, in the given order; those of a folder or glob sorted by name.

    Args:
        sources: Each an image, a folder (without its subfolders), a glob such as ``shots/*.jpg``, a video, a ``.txt``
            that lists one image per line, the number of a camera, or the URL of a stream.

    Attributes:
        files: What will be read.
        skipped: Files that could not be read so far.

    Raises:
        DataError: A source does not exist, is empty, or is not of these kinds.
    """

    def __init__(self, *sources: str) -> None:
        self._streams: dict[Path, int | str] = {}
        self.files = [file for source in sources for file in self._found(source)]
        self.skipped: list[Path] = []

    def _found(self, source: str) -> list[Path]:
        if not source:  # as of a variable that is not set; the path of it would be the working directory
            raise DataError("--source is empty: it names an image, a folder, a glob, a video, a .txt list, a camera or a stream")
        path = expand(source)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES + VIDEOS)
            if not files:
                raise DataError(f"{path}: the folder has no images or videos (subfolders are not searched)")
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
                raise DataError(f"no file matches {source} (looked in {Path.cwd()})")
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
    """Return the files that a text file lists, relative to its folder."""
    lines = [line.strip() for line in read_text(path, DataError).splitlines()]
    files = [path.parent / line for line in lines if line]
    if not files:
        raise DataError(f"{path}: lists no images")
    return files


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in IMAGES + VIDEOS and read_image(path) is None:
        raise DataError(f"{path}: is neither an image nor a video that OpenCV reads")
    return path
