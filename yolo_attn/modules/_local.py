"""Shared functions for attention over windows, neighbourhoods and moved positions, for maps of any height and width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._base import full_precision, match, wide

__all__ = [
    "RelativePositions",
    "attend_near",
    "bilinear",
    "heads_of",
    "inside",
    "join_windows",
    "pad_to",
    "parts_of",
    "sample",
    "windows_of",
]


def heads_of(x: Tensor, heads: int) -> Tensor:
    """Return the heads of a map as sequences, (B, heads D, H, W) -> (B, heads, H W, D)."""
    b, c, h, w = x.shape
    return x.reshape(b, heads, c // heads, h * w).transpose(2, 3)


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Return `x` with zeros below and to the right, so that height and width are multiples of `multiple`."""
    h, w = (parts_of(n, multiple) * multiple - n for n in x.shape[2:])
    return nn.functional.pad(x, (0, w, 0, h))


def parts_of(length: int, size: int) -> int:
    """Return the number of parts of `size` in a length, rounded up.

    Never divides a negative number, which ONNX rounds up.
    """
    return (length + size - 1) // size


def windows_of(x: Tensor, size: int, heads: int, halo: int = 0) -> Tensor:
    """Cut a map into windows of size x size, each with `halo` more positions on every side, which are 0 outside.

    (B, heads D, H, W), H and W multiples of `size` -> (B, heads windows, (size + 2 halo)^2, D). The windows stand row by
    row one after another for each head, and so do the positions of a window.
    """
    b, c, h, w = x.shape
    side, count = size + 2 * halo, (h // size) * (w // size)
    parts = nn.functional.unfold(x, side, padding=halo, stride=size)  # (B, C side^2, windows)
    parts = parts.reshape(b, heads, c // heads, side * side, count).permute(0, 1, 4, 3, 2)
    return parts.reshape(b, heads * count, side * side, c // heads)


def join_windows(x: Tensor, size: int, heads: int, like: Tensor) -> Tensor:
    """Join windows without halo, (B, heads windows, size^2, D) -> (B, heads D, H, W) of `like`."""
    b, _, h, w = like.shape
    rows, columns, d = parts_of(h, size), parts_of(w, size), x.shape[3]
    x = x.reshape(b, heads, rows * columns, size * size, d).permute(0, 1, 4, 3, 2)
    y = nn.functional.pixel_shuffle(x.reshape(b, heads * d * size * size, rows, columns), size)
    return y[:, :, :h, :w]


def inside(x: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """Return whether the neighbours of each position lie on the map, (1, k k, H W)."""
    ones = torch.ones_like(x[:1, :1])
    return nn.functional.unfold(ones, kernel_size, dilation, dilation * (kernel_size // 2)) > 0


def attend_near(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int = 1,
    *,
    bias: Tensor | None = None,
    border: bool = False,
) -> Tensor:
    """Attention of each position to the k x k around it, each (B, heads D, H, W) -> (B, heads D, H, W).

    Args:
        query: Already scaled.
        key: As `query`.
        value: As `query`.
        heads: Number of heads; each has the same channels of all three.
        kernel_size: k, odd.
        dilation: Distance between neighbours.
        bias: Key and bias in one, (D, k k): added to the keys of each head by position.
        border: Whether positions outside the map count as zero instead of being left out.
    """
    b, c, h, w = query.shape
    near = [
        nn.functional.unfold(t, kernel_size, dilation, dilation * (kernel_size // 2)).reshape(
            b, c, kernel_size * kernel_size, h * w
        )
        for t in (key, value)
    ]
    on_map = None if border else inside(query, kernel_size, dilation)
    parts = []
    for q, k, v in zip(query.flatten(2).chunk(heads, 1), near[0].chunk(heads, 1), near[1].chunk(heads, 1)):
        with full_precision(query):
            k = wide(k)
            k = k if bias is None else k + wide(bias).unsqueeze(2)
            score = (wide(q).unsqueeze(2) * k).sum(1)  # (B, k k, H W)
            if on_map is not None:
                score = score.masked_fill(~on_map, -torch.inf)
            weight = score.softmax(1).unsqueeze(1)
            parts.append(match((wide(v) * weight).sum(2), v))
    return torch.cat(parts, 1).reshape(b, c, h, w)


def sample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read a map between its positions, bilinearly; what lies outside is 0.

    The backward of torch's own function adds in any order on a GPU and is refused where deterministic algorithms are
    asked for; :func:`bilinear`, which takes more memory, replaces it there.

    Args:
        x: (B, C, H, W).
        rows: Where to read along the height, in positions, 0 for the centre of the first; (B, h, w).
        columns: The same along the width.

    Returns:
        (B, C, h, w) in the type of `x`.
    """
    with full_precision(x):
        if x.is_cuda and torch.are_deterministic_algorithms_enabled():
            return match(bilinear(wide(x), wide(rows), wide(columns)), x)
        # to -1 ... 1 from edge to edge; far outside is as good as outside, and finite
        grid = torch.stack(
            (
                ((2 * wide(columns) + 1) / x.shape[3] - 1).clamp(-4, 4),
                ((2 * wide(rows) + 1) / x.shape[2] - 1).clamp(-4, 4),
            ),
            3,
        )
        return match(nn.functional.grid_sample(wide(x), grid, align_corners=False), x)


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Do what :func:`sample` does, by indices: the mean of the four nearest positions, weighted by nearness."""
    b, c, h, w = x.shape
    top, left = rows.floor(), columns.floor()
    total = torch.zeros_like(x[:, :, :1, :1])
    flat = x.flatten(2)
    for dy in (0, 1):
        for dx in (0, 1):
            y, z = top + dy, left + dx
            share = (1 - (rows - y).abs()) * (1 - (columns - z).abs())
            share = share * ((y >= 0) & (y <= h - 1) & (z >= 0) & (z <= w - 1))
            index = (y.clamp(0, h - 1) * w + z.clamp(0, w - 1)).long().flatten(1)
            values = flat.gather(2, index.unsqueeze(1).expand(b, c, index.shape[1]))
            total = total + values.reshape(b, c, *rows.shape[1:]) * share.unsqueeze(1)
    return total


class RelativePositions(nn.Module):
    """Scores by relative position, ``q . (r[row distance] + r[column distance])``, https://arxiv.org/abs/1904.09925.

    Args:
        channels: D of a head.
        height: Distances along the height go from 1 - height to height - 1; larger distances count as the largest.
        width: The same along the width.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(2 * height - 1, channels)
        self.columns = nn.Embedding(2 * width - 1, channels)
        for table in (self.rows, self.columns):
            nn.init.normal_(table.weight, std=channels**-0.5)

    def forward(self, query: Tensor, of: tuple[int, int], to: tuple[int, int]) -> Tensor:
        """Return the scores.

        Args:
            query: (B, G, h w, D).
            of: h and w of the queries.
            to: H and W of the keys; the first query and the first key have distance 0.

        Returns:
            (B, G, h w, H W), in fp32 where it would be half.
        """
        b, g, _, d = query.shape
        with full_precision(query):
            q = wide(query).reshape(b, g, of[0], of[1], d)
            row = distances(self.rows, of[0], to[0]) @ q.transpose(3, 4)  # (B, G, h, H, w)
            column = distances(self.columns, of[1], to[1]) @ q.permute(0, 1, 3, 4, 2)  # (B, G, w, W, h)
            score = row.transpose(3, 4).unsqueeze(5) + column.permute(0, 1, 4, 2, 3).unsqueeze(4)
        return score.reshape(b, g, of[0] * of[1], to[0] * to[1])


def distances(table: nn.Embedding, of: int, to: int) -> Tensor:
    """Return the entry for each query and key along one axis, (1, 1, of, to, D).

    The first factor, with as many dimensions as the second: OpenCV 5.0 is wrong on a constant that comes second.
    """
    most = table.num_embeddings // 2
    device = table.weight.device
    step = torch.arange(to, device=device) - torch.arange(of, device=device).unsqueeze(1)
    return wide(table(step.clamp(-most, most) + most)).unsqueeze(0).unsqueeze(0)
