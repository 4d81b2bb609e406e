import numpy as np

from dex_jax.procedural._raster import rasterize


def _draw(screen, depth, values, faces, size=4):
    return rasterize(
        np.array(screen, float),
        np.array(depth, float),
        np.array(values, float),
        np.array(faces),
        height=size,
        width=size,
    )


def test_a_triangle_covers_the_pixels_whose_middle_lies_inside():
    # Legs of 4 pixels from the upper left corner: rows hold 4, 3, 2, 1 middles, those
    # on the slanted edge (x + y = 4) counted.
    hits = _draw([(0, 0), (0, 4), (4, 0)], [1, 1, 1], np.eye(3), [(0, 1, 2)])
    assert hits.pixel.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9, 12]
    # The middle of the first pixel is half a pixel from both legs: weights
    # 1 - 1/8 - 1/8, 1/8 and 1/8.
    np.testing.assert_allclose(hits.values[:, 0], [0.75, 0.125, 0.125], rtol=1e-6)


def test_a_triangle_seen_from_behind_is_left_out():
    hits = _draw([(0, 0), (4, 0), (0, 4)], [1, 1, 1], np.eye(3), [(0, 1, 2)])
    assert hits.pixel.size == 0


def test_the_nearer_triangle_hides_the_farther_one():
    screen = [(0, 0), (0, 8), (8, 0)] * 2
    for near in (0, 1):
        depth = [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
        depth[3 * near : 3 * near + 3] = [1.0, 1.0, 1.0]
        hits = _draw(screen, depth, np.zeros((6, 1)), [(0, 1, 2), (3, 4, 5)])
        assert hits.pixel.size == 16
        assert (hits.face == near).all()


def test_values_are_interpolated_in_perspective():
    # A quad 2 pixels high and 4 wide; its right edge is three times as far away.
    # The middle of column 0 lies at 1/8 of the way on the screen, where
    # 1 / depth = 7/8 * 1 + 1/8 * 1/3, so the value there is (1/8 * 1/3) / (22/24).
    screen = [(0, 0), (0, 2), (4, 2), (4, 0)]
    hits = _draw(screen, [1, 1, 3, 3], [[0], [0], [1], [1]], [(0, 1, 2), (0, 2, 3)])
    assert hits.pixel.tolist() == list(range(8))
    np.testing.assert_allclose(hits.values[0, 0], (1 / 24) / (22 / 24), rtol=1e-5)


def test_what_lies_outside_the_image_is_cut_off():
    screen = [(-9, -9), (-9, 30), (30, -9)]
    hits = _draw(screen, [1, 1, 1], np.zeros((3, 1)), [(0, 1, 2)])
    assert hits.pixel.tolist() == list(range(16))
