"""Blocks cover every row, each once where it counts, and working memory stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dex_jax.neighbors._blocks import (
    Blocks,
    divide,
    map_blocks,
    map_blocks_with,
    repeat,
    take_rows,
)

# Rows are copied and counted: nothing here rounds.
pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.mark.quick
@given(
    rows=st.integers(1, 5000), most=st.integers(-1, 6000), multiple=st.integers(1, 64)
)
@example(rows=1, most=0, multiple=32)
@example(rows=33, most=32, multiple=32)
@settings(deadline=None, max_examples=30)
def test_every_row_is_new_in_one_block(rows, most, multiple):
    blocks = divide(rows, most, multiple=multiple)
    assert 1 <= blocks.size <= min(rows, max(1, most) + multiple - 1)
    assert blocks.size % multiple == 0 or blocks.size == rows
    counted = np.zeros(rows, int)
    for i in {0, 1, blocks.number // 2, blocks.number - 2, blocks.number - 1}:
        if not 0 <= i < blocks.number:
            continue
        start = int(blocks.start(jnp.int32(i)))
        assert 0 <= start <= rows - blocks.size
        counted[start : start + blocks.size] += np.asarray(blocks.fresh(jnp.int32(i)))
        new = slice(i * blocks.size, (i + 1) * blocks.size)
        assert (counted[new] == 1).all()
    assert counted.max() == 1


def test_blocks_are_of_nearly_one_size():
    # Of 1,000 rows in blocks of 999 two halves are made, not a whole and a rest.
    assert divide(1000, 999) == Blocks(1000, 500)
    assert divide(1000, 999, multiple=32) == Blocks(1000, 512)
    assert divide(20, 19, multiple=32) == Blocks(20, 20)


def test_blocks_of_a_tree_are_put_where_they_were_taken():
    blocks = Blocks(7, 3)
    tree = {"a": jnp.arange(7), "b": jnp.arange(14.0).reshape(7, 2)}
    part = blocks.take(tree, jnp.int32(2))
    assert part["a"].tolist() == [4, 5, 6]
    empty = jax.tree.map(jnp.zeros_like, tree)
    put = blocks.put(empty, part, jnp.int32(2))
    assert put["a"].tolist() == [0, 0, 0, 0, 4, 5, 6]
    assert put["b"][4:].tolist() == tree["b"][4:].tolist()


@pytest.mark.parametrize("size", [1, 4, 5, 13])
def test_results_of_blocks_are_joined(size):
    blocks = Blocks(13, size)
    rows = jnp.arange(13.0)
    found = map_blocks(lambda i: (blocks.take(rows, i) ** 2, blocks.fresh(i)), blocks)
    np.testing.assert_array_equal(found[0], rows**2)
    # Where two blocks share rows, the later one was written last.
    shared = 13 - 13 // size * size
    assert found[1].sum() == (13 if size in (1, 13) else 12 - (size - 1) + shared)


def test_every_block_finds_the_working_memory_clear():
    blocks = Blocks(10, 4)
    rows = jnp.array([3, 1, 3, 0, 2, 3, 1, 1, 2, 2])

    def counts(i, table):
        own = blocks.take(rows, i)
        table = table.at[own].add(1)
        return table[own], table.at[own].set(0)

    found = map_blocks_with(counts, jnp.zeros(4, jnp.int32), blocks)
    # The last block begins two rows early, at row 6.
    parts = [[3, 1, 3, 0], [2, 3, 1, 1], [1, 1, 2, 2]]
    expected = [[part.count(row) for row in part] for part in parts]
    assert found.tolist() == expected[0] + expected[1][:2] + expected[2]


def test_repeats_so_often_and_leaves_whole_numbers_at_32_bits():
    def body(i, carry):
        start = Blocks(100, 7).start(i)
        assert (carry + start).dtype == jnp.int32
        return carry + start

    zero = np.zeros((), np.int32)
    for wide in (False, True):
        with jax.enable_x64(wide):
            assert repeat(0, body, jnp.asarray(zero)) == 0
            found = repeat(15, body, jnp.asarray(zero))
            assert found == 7 * (14 * 13 // 2) + 93
            assert found.dtype == jnp.int32
            traced = jax.jit(lambda n: repeat(n, body, jnp.asarray(zero)))
            assert traced(jnp.int32(3)) == 7 + 14


def test_takes_rows_by_an_index_of_any_shape():
    table = jnp.arange(12).reshape(6, 2)
    rows = jnp.array([[5, 0], [0, 3]])
    np.testing.assert_array_equal(take_rows(table, rows), np.asarray(table)[rows])
