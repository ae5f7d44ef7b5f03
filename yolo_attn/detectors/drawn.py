"""Generated images, for checks that were given none."""

from __future__ import annotations

import numpy as np

__all__ = ["drawn_images"]


def drawn_images(count: int = 4, seed: int = 0) -> list[np.ndarray]:
    """Return images of coloured shapes on a noisy background, (480, 640, 3) uint8 BGR, determined by the seed."""
    import cv2

    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        ground = rng.integers(60, 190, size=(30, 40, 3), dtype=np.uint8)
        im: np.ndarray = cv2.resize(ground, (640, 480), interpolation=cv2.INTER_CUBIC)
        for _ in range(int(rng.integers(3, 8))):
            center = [int(v) for v in rng.integers((60, 60), (580, 420))]
            size, paint = int(rng.integers(20, 110)), [int(c) for c in rng.integers(0, 256, 3)]
            shape = int(rng.integers(3))
            if shape == 0:
                cv2.circle(im, center, size, paint, -1, cv2.LINE_AA)
            elif shape == 1:
                cv2.rectangle(im, [c - size for c in center], [c + size for c in center], paint, -1)
            else:
                turn = rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3
                corners = np.stack((np.cos(turn), np.sin(turn)), 1) * size + center
                cv2.fillPoly(im, [corners.astype(np.int32)], paint, cv2.LINE_AA)
        out.append(im)
    return out
