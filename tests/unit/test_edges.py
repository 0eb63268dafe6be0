"""Canny's edges, against OpenCV's of the same image."""

import numpy as np
import pytest

from pipeline.media.edges import canny

OPENCV = [
    "................",
    "............##..",
    ".....###...#..#.",
    "...##...##....#.",
    "..##.....##.....",
    "..#.......#.....",
    ".#........#.....",
    ".#........#.....",
    ".#........######",
    "..#.......#.....",
    "..##.....#......",
    "...#######......",
    "................",
    ".........#......",
    ".........#......",
    ".........#......",
]
"""cv2.Canny(image, 100, 200) of the image below, by OpenCV 5.0."""


def image(dark: float = 0.0) -> np.ndarray:
    """A disc, a square that runs out of the image, and a faint bar."""
    rows, columns = np.mgrid[0:16, 0:16]
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0] = 30
    pixels[(rows - 7) ** 2 + (columns - 6) ** 2 < 22] = (200, 60, 30)
    pixels[9:, 10:] = (10, 120, 120)
    pixels[2:4, 11:15, 2] = 90
    return (pixels * (1 - dark)).astype(np.float32) / np.float32(255)


def drawn(edges: np.ndarray) -> list[str]:
    return ["".join("#" if white else "." for white in row) for row in edges[..., 0]]


def test_the_edges_are_opencvs() -> None:
    edges = canny(image())
    assert edges.shape == (16, 16, 3)
    assert edges.dtype == np.float32
    assert drawn(edges) == OPENCV
    assert np.array_equal(edges[..., 0], edges[..., 2])


def test_a_slope_as_steep_as_its_neighbour_is_decided_as_by_opencv() -> None:
    rows, columns = np.mgrid[0:14, 0:14]
    grey = (rows // 2 + columns // 2 * 7 + (rows // 3) * (columns // 3)) % 8 * 32
    edges = canny(np.repeat(grey[..., None], 3, axis=2).astype(np.float32) / np.float32(255))
    assert drawn(edges) == [
        ".#............",
        "#.#......##...",
        "...####....###",
        ".......####...",
        ".#.........###",
        ".#..#..#......",
        ".#.####.##.##.",
        "..............",
        ".......#..#..#",
        "...#.....#.##.",
        "......##.#....",
        "....##.#.##..#",
        ".#.#....#..#..",
        "..#..#..#..#..",
    ]


@pytest.mark.parametrize("dark", [0.9, 1.0])
def test_what_is_too_faint_is_no_edge(dark: float) -> None:
    assert not canny(image(dark)).any()


def test_a_faint_edge_counts_where_it_goes_on_from_a_clear_one() -> None:
    pixels = np.zeros((8, 40, 3), np.float32)
    pixels[4:] = np.linspace(0.15, 0.6, 40, dtype=np.float32)[:, None]
    faint = canny(pixels[:, :2])
    assert not faint.any()
    whole = canny(pixels)
    assert whole[:, :2].any()
