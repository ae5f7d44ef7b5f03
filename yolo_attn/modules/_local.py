"""Shared functions for attention over windows, neighbourhoods and moved positions, for maps of any height and width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._base import full_precision, leave_out, match, softmax_over, traced, wide

__all__ = [
    "RelativePositions",
    "attend_near",
    "bilinear",
    "heads_of",
    "join_windows",
    "near_of",
    "parts_of",
    "sample",
    "windows_of",
]


def heads_of(x: Tensor, heads: int) -> Tensor:
    """Return the heads of a map as sequences, (B, heads D, H, W) -> (B, heads, H W, D)."""
    b, c, h, w = x.shape
    return x.reshape(b, heads, c // heads, h * w).transpose(2, 3)


def parts_of(length: int, size: int) -> int:
    """Return the number of parts of `size` in a length, rounded up.

    Never divides a negative number, which ONNX rounds up.
    """
    return (length + size - 1) // size


def windows_of(
    x: Tensor, size: tuple[int, int], heads: int, halo: int = 0, *, count: tuple[int, int] | None = None
) -> Tensor:
    """Cut a map into windows, each with `halo` more positions on every side; what lies outside the map is 0.

    (B, heads D, H, W) -> (B, heads windows, (height + 2 halo) (width + 2 halo), D) for windows of `size`, height and
    width, as many as cover the map, or `count` along height and width. The windows stand row by row for each
    head; the positions of a window **column by column**. That order is what two exchanges of neighbouring axes give:
    no value has more than four dimensions, and the first of them stays the batch.
    """
    b, c = x.shape[:2]
    rows, columns = count or (parts_of(n, k) for n, k in zip(x.shape[2:], size))
    beyond = [-(-2 * halo // k) if halo else 0 for k in size]  # whole windows that the last halo reaches into
    below, right = ((m + e) * k - n - halo for m, e, k, n in zip((rows, columns), beyond, size, x.shape[2:]))
    x = nn.functional.pad(x, (halo, right, halo, below))
    x = overlapping(x, size[0], halo, beyond[0], c * rows)
    x = overlapping(x.transpose(2, 3), size[1], halo, beyond[1], c * rows * columns)  # (B, C windows, width, height)
    x = x.reshape(b, heads, c // heads, -1).transpose(2, 3)
    return x.reshape(b, heads * rows * columns, -1, c // heads)


def overlapping(x: Tensor, size: int, halo: int, beyond: int, parts: int) -> Tensor:
    """Cut the third axis into parts of `size` and twice `halo`, (B, ., length, L) -> (B, parts, size + 2 halo, L)."""
    b, _, _, other = x.shape
    pieces = []
    for j in range(beyond + 1):  # each part is one of `size`, and as much of the next ones as the halo reaches
        end = (j - beyond) * size if j < beyond else None
        piece = x[:, :, j * size : end].reshape(b, parts, size, other)
        pieces.append(piece[:, :, : size + 2 * halo - j * size])
    return torch.cat(pieces, 2) if beyond else pieces[0]


def join_windows(
    x: Tensor, size: tuple[int, int], heads: int, like: Tensor, *, count: tuple[int, int] | None = None
) -> Tensor:
    """Join windows without halo, (B, heads windows, height width, D) -> (B, heads D, H, W) of `like`."""
    h, w = like.shape[2:]
    b, d = x.shape[0], x.shape[3]
    rows, columns = count or (parts_of(h, size[0]), parts_of(w, size[1]))
    x = x.reshape(b, heads, -1, d).transpose(2, 3)
    x = x.reshape(b, heads * d * rows, columns * size[1], size[0]).transpose(2, 3)
    return x.reshape(b, heads * d, rows * size[0], columns * size[1])[:, :, :h, :w]


def near_of(x: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """Return the k x k values around each position, row by row, (B, C, H, W) -> (B, C, k k, H W); 0 outside the map.

    In a graph for export they are cut out by rows and then by columns, which gives the same values: ONNX has no
    ``unfold``, and the look-ups that torch writes for it are of rank 6.
    """
    (b, c, h, w), k, reach = x.shape, kernel_size, dilation * (kernel_size // 2)
    if not traced():
        return nn.functional.unfold(x, k, dilation, reach).reshape(b, c, k * k, h * w)
    ends = [(i * dilation, (i + 1 - k) * dilation or None) for i in range(k)]
    x = nn.functional.pad(x, (reach, reach, reach, reach))
    x = torch.cat([x[:, :, begin:end] for begin, end in ends], 2).reshape(b, c * k, h, -1)
    return torch.cat([x[:, :, :, begin:end] for begin, end in ends], 2).reshape(b, c, k * k, h * w)


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
    taps, n, d = kernel_size * kernel_size, h * w, c // heads
    near = near_of(torch.cat((key, value), 1), kernel_size, dilation).chunk(2, 1)  # each (B, C, k k, H W)
    with full_precision(query):
        q = wide(query).reshape(b, c, 1, n)
        score = (q * wide(near[0])).reshape(b, heads, d, taps * n).sum(2).reshape(b, heads, taps, n)
        if bias is not None:
            score = score + wide(bias).t().reshape(1, 1, taps, d) @ q.reshape(b, heads, d, n)
        if not border:
            on_map = near_of(torch.ones_like(q[:1, :1]).reshape(1, 1, h, w), kernel_size, dilation)
            score = leave_out(score, on_map, 2)
        weight = softmax_over(score, 2).reshape(b, heads, 1, taps * n)
        y = (wide(near[1]).reshape(b, heads, d, taps * n) * weight).reshape(b, c, taps, n).sum(2)
    return match(y, value).reshape(b, c, h, w)


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

    def forward(self, query: Tensor, of: tuple[int, int], to: tuple[int, int], *, across: bool = False) -> Tensor:
        """Return the scores.

        Args:
            query: (B, G, h w, D).
            of: h and w of the queries.
            to: H and W of the keys; the first query and the first key have distance 0.
            across: Whether positions stand column by column instead of row by row; then `of` and `to` begin with w
                and W.

        Returns:
            (B, G, h w, H W), in fp32 where it would be half.
        """
        (b, g, n, d), (h, w) = query.shape, of
        outer, inner = (self.columns, self.rows) if across else (self.rows, self.columns)
        with full_precision(query):
            q = wide(query)
            row = q.reshape(b, g, h, w * d).transpose(1, 2).reshape(b, h, g * w, d) @ distances(outer, h, to[0])
            row = row.reshape(b, h, g, w * to[0]).transpose(1, 2).reshape(b, g * n, to[0], 1)
            column = q.reshape(b, g * h, w, d).transpose(1, 2) @ distances(inner, w, to[1])  # (B, w, G h, W)
            score = row + column.transpose(1, 2).reshape(b, g * n, 1, to[1])
        return score.reshape(b, g, n, to[0] * to[1])


def distances(table: nn.Embedding, of: int, to: int) -> Tensor:
    """Return the entry for each query and key along one axis, (1, of, D, to)."""
    most = table.num_embeddings // 2
    device = table.weight.device
    step = torch.arange(to, device=device) - torch.arange(of, device=device).unsqueeze(1)
    return wide(table(step.clamp(-most, most) + most)).transpose(1, 2).unsqueeze(0)
