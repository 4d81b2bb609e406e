import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.models import parts


def test_the_paper_has_seventeen_parts():
    layout = parts.layout(expected_parts=17)
    assert (layout.num_local, layout.num_global) == (14, 3)
    assert layout.widths(2048) == (1024,) * 14 + (2048,) * 3


def test_bounds_are_those_of_array_split():
    for size in range(3, 12):
        for pieces in range(1, 4):
            expected = np.array_split(np.arange(size), pieces)
            cuts = parts.bounds(size, pieces)
            assert [list(range(a, b)) for a, b in cuts] == [list(e) for e in expected]


def test_pool_by_hand():
    # One image, 3 x 2 pixels, 4 channels; the value tells row, column and channel.
    row, column, channel = np.indices((3, 2, 4))
    feature_map = jnp.asarray(100.0 * row + 10.0 * column + channel)[None]
    local = [np.asarray(p)[0] for p in parts.pool(feature_map, (2, 2, 1))]
    # Channels 0-1 then 2-3; within them rows 0-1 (largest row 1) then row 2.
    expected = [[110, 111], [210, 211], [112, 113], [212, 213], [210, 211, 212, 213]]
    assert len(local) == len(expected)
    for got, want in zip(local, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_pool_refuses_a_map_smaller_than_its_cuts():
    message = r"branch 2 \(2, 3, 1\) cuts height into 3 .* map is 2 x 2; use larger"
    with pytest.raises(ValueError, match=message):
        parts.pool(jnp.zeros((1, 2, 2, 4)), (2, 3, 1), branch=1)


def test_channel_cuts_must_divide():
    message = r"branch 1 \(3, 1, 1\) cuts 2048 channels into 3 equal pieces"
    with pytest.raises(ValueError, match=message):
        parts.layout(((3, 1, 1),)).widths(2048)


@pytest.mark.parametrize(
    ("cuts", "expected_parts", "message"),
    [
        ((), None, "parts: expected one"),
        ((2, 3, 1), None, "parts: expected one"),
        (((2, 3),), None, "parts: expected one"),
        (((2, 0, 1),), None, "parts, branch 1: expected at least 1, got 0"),
        (((2, 1.5, 1),), None, "parts, branch 1: expected a whole number, got 1.5"),
        (
            ((1, 1, 1),),
            17,
            r"gives 2 parts \(1 local, 1 global\), expected_parts is 17",
        ),
    ],
)
def test_bad_layouts_are_explained(cuts, expected_parts, message: str):
    with pytest.raises(ValueError, match=message):
        parts.layout(cuts, expected_parts=expected_parts)


def test_descriptor_has_one_norm_over_all_parts():
    embeddings = jnp.array([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    expected = [[0.6, 0, 0, 0.8], [0, 0, 0, 0]]
    np.testing.assert_allclose(parts.descriptor(embeddings), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"embeddings: expected \[B, P, D\]"):
        parts.descriptor(embeddings[0])


def test_table_has_one_line_a_part():
    text = parts.table(parts.layout(), channels=2048, size=(18, 18))
    lines = text.splitlines()
    assert len(lines) == 18
    assert lines[3].split() == ["2", "1", "local", "0-1023", "12-17", "0-17"]
    assert lines[-1].split() == ["16", "3", "global", "0-2047", "0-17", "0-17"]
