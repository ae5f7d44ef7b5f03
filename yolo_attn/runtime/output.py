"""Results of detection: annotated images and videos, YOLO text files, one JSON file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import FileError
from ..files import replacing, write_bytes, write_text
from .image import annotate, color
from .source import Frame
from .tasks import Seen

__all__ = ["Writer", "as_text", "free_folder", "outlined"]

TOP = 5  # classes of a picture that are told
SEEN = 0.5  # confidence above which a key point is drawn, as by the host


def as_text(entries: list[dict[str, Any]]) -> str:
    """Return entries as JSON, one image a line: an outline has hundreds of numbers."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f"[\n{lines}\n]\n"


def outlined(image: np.ndarray, found: Seen) -> np.ndarray:
    """Draw outlines of masks, oriented boxes and key points onto an image, and return it."""
    unit = max(round(sum(image.shape[:2]) / 2 * 0.003), 2)
    for box, told in zip(found.boxes, found.fields):
        for points in [*told.get("polygons", []), *([told["corners"]] if "corners" in told else [])]:
            cv2.polylines(image, [np.round(points).astype(np.int32)], True, color(int(box[5])), unit, cv2.LINE_AA)
        for x, y, *sure in told.get("keypoints", []):
            if not sure or sure[0] > SEEN:
                cv2.circle(image, (round(x), round(y)), unit + 1, color(int(box[5])), -1, cv2.LINE_AA)
    return image


def free_folder(wanted: Path) -> Path:
    """Return `wanted`, or `wanted-2`, `wanted-3`, ... if it is not empty."""
    n, out = 1, wanted
    while out.exists() and (not out.is_dir() or any(out.iterdir())):
        n += 1
        out = wanted.with_name(f"{wanted.name}-{n}")
    return out


class Writer:
    """Writes results into one folder; a context manager that finishes videos and the JSON file on exit.

    Results for a file `a.jpg` are called `a`, or `a-2`, `a-3`, ... if another file of the run has that name.

    Args:
        folder: Created if missing; must be empty, so that nothing is overwritten.
        names: Class number to name.
        pictures: Write annotated images and videos.
        text: Write `labels/NAME.txt`, one line per box: class, center x, center y, width and height relative to the
            image, and confidence.
        as_json: Write `detections.json`.
        keep: Keep the entries of that file, also where it is not written.

    Attributes:
        entries: What was found in each image, as in `detections.json`.

    Raises:
        FileError: The folder is not empty, or cannot be written.
    """

    def __init__(
        self, folder: Path, names: dict[int, str], *, pictures: bool, text: bool, as_json: bool, keep: bool = False
    ) -> None:
        self.folder, self.names = folder, names
        self.pictures, self.text, self.as_json, self.keep = pictures, text, as_json, keep or as_json
        self._video: tuple[Path, cv2.VideoWriter, contextlib.ExitStack] | None = None
        self.entries: list[dict[str, Any]] = []
        self._stems: dict[Path, str] = {}
        self._made: list[Path] = []
        if not (pictures or text or as_json):
            return
        try:
            self._made = [folder / "labels", *([] if folder.exists() else [folder])]
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise FileError(f"{folder}: is not empty. Choose a new or empty folder with -o.")
            if text:
                (folder / "labels").mkdir()
        except OSError as exc:
            raise FileError(
                f"{folder}: cannot be written: {exc.strerror or exc}. Choose another folder with -o."
            ) from exc

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._close_video()
            if self.as_json:
                write_text(self.folder / "detections.json", as_text(self.entries))
        finally:
            for place in self._made if exc[0] is not None else ():  # if nothing came to lie in them
                with contextlib.suppress(OSError):
                    place.rmdir()

    def add(self, frame: Frame, found: Seen) -> None:
        """Write what was found in one image."""
        if self.pictures:
            oriented = any("corners" in told for told in found.fields)  # their upright boxes say nothing
            self._picture(frame, outlined(annotate(frame.image, found.boxes, self.names, frames=not oriented), found))
        if self.text:
            self._text(frame, found.boxes)
        if self.keep:
            h, w = frame.image.shape[:2]
            entry: dict[str, Any] = {"image": str(frame.path), "height": h, "width": w}
            if frame.index is not None:
                entry["frame"] = frame.index
            if found.scores is not None:
                best = np.argsort(-found.scores, kind="stable")[:TOP]
                entry["classes"] = [self._class(int(c), float(found.scores[c])) for c in best]
            else:
                more = found.fields or [{}] * len(found.boxes)
                entry["detections"] = [
                    {**self._class(int(c), p), "box": [round(v, 2) for v in box], **told}
                    for (*box, p, c), told in zip(found.boxes.tolist(), more)
                ]
            self.entries.append(entry)

    def _class(self, number: int, confidence: float) -> dict[str, Any]:
        return {"class": number, "name": self.names.get(number, str(number)), "confidence": round(confidence, 5)}

    def _stem(self, path: Path) -> str:
        if path not in self._stems:
            taken = {s.lower() for s in self._stems.values()}  # some file systems ignore case
            n, stem = 1, path.stem
            while stem.lower() in taken:
                n += 1
                stem = f"{path.stem}-{n}"
            self._stems[path] = stem
        return self._stems[path]

    def _picture(self, frame: Frame, image: np.ndarray) -> None:
        if frame.index is None:
            self._close_video()
            suffix = frame.path.suffix.lower()
            suffix = frame.path.suffix if suffix in (".jpg", ".jpeg", ".png", ".bmp", ".webp") else ".jpg"
            path = self.folder / (self._stem(frame.path) + suffix)
            good, data = cv2.imencode(suffix, image)
            if not good:
                raise FileError(f"{path}: OpenCV cannot encode it")
            write_bytes(path, data.tobytes(), durable=False)
            return
        if self._video is None or self._video[0] != frame.path:
            self._close_video()
            path = self.folder / f"{self._stem(frame.path)}.mp4"
            h, w = image.shape[:2]
            place = contextlib.ExitStack()
            draft = place.enter_context(replacing(path, durable=False))
            writer = cv2.VideoWriter(str(draft), cv2.VideoWriter.fourcc(*"mp4v"), frame.fps, (w, h))
            if not writer.isOpened():
                draft.unlink()
                raise FileError(f"{path}: OpenCV cannot write this video. Use --no-save to write no images.")
            place.callback(writer.release)
            self._video = frame.path, writer, place
        self._video[1].write(image)

    def _text(self, frame: Frame, found: np.ndarray) -> None:
        h, w = frame.image.shape[:2]
        stem = self._stem(frame.path) + ("" if frame.index is None else f"_{frame.index}")
        lines = [
            f"{int(c)} {(x1 + x2) / 2 / w:.6f} {(y1 + y2) / 2 / h:.6f} {(x2 - x1) / w:.6f} {(y2 - y1) / h:.6f} {p:.6f}"
            for x1, y1, x2, y2, p, c in found.tolist()
        ]
        write_text(self.folder / "labels" / f"{stem}.txt", "".join(f"{s}\n" for s in lines), durable=False)

    def _close_video(self) -> None:
        if self._video is not None:
            place, self._video = self._video[2], None
            place.close()  # also after an error or Ctrl-C, the only way to end a camera's recording
