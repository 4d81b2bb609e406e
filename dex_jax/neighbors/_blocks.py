"""Blocks of rows: loops that work on a part at a time, so that memory stays bounded.

`Blocks` says how rows are divided; `map_blocks` and `repeat` run over the blocks.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Tree = TypeVar("Tree")
Scratch = TypeVar("Scratch")


class Blocks(NamedTuple):
    """Rows divided into blocks of one size.

    The last block begins early where it would end outside, so that no input has to be
    padded. It shares its first rows with the block before: these are computed twice, to
    the same values. Where a row may count only once, `fresh` says which are new.

    Attributes:
        rows: how many rows there are in all.
        size: rows of a block, at most `rows`.
    """

    rows: int
    size: int

    @property
    def number(self) -> int:
        """How many blocks there are."""
        return -(-self.rows // self.size)  # rounded up

    def start(self, i: jax.Array) -> jax.Array:
        """The first row of block `i`."""
        return jnp.minimum(i * self.size, self.rows - self.size)

    def fresh(self, i: jax.Array) -> jax.Array:
        """Which rows `[size]` of block `i` no block before it has."""
        row = jnp.arange(self.size, dtype=jnp.int32)
        return self.start(i) + row >= i * self.size

    def take(self, arrays: Tree, i: jax.Array) -> Tree:
        """The rows of block `i` of every array `[rows, ...]` of a tree."""
        start = self.start(i)
        return jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(x, start, self.size), arrays
        )

    def put(self, wholes: Tree, parts: Tree, i: jax.Array) -> Tree:
        """Writes `parts` `[size, ...]` as the rows of block `i` of a tree of arrays."""
        start = self.start(i)
        return jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, start, 0),
            wholes,
            parts,
        )


def divide(rows: int, most: int, *, multiple: int = 1) -> Blocks:
    """Divides rows into equal blocks of about `most`, so that little is done twice.

    With `multiple` the size is rounded up to a multiple of it where that still fits.
    """
    # The number of blocks first, then the least size that needs no more of them.
    size = -(-rows // -(-rows // max(1, most)))
    return Blocks(rows, min(-(-size // multiple) * multiple, rows))


def repeat(
    number: int | jax.Array, body: Callable[[jax.Array, Tree], Tree], carry: Tree
) -> Tree:
    """`fori_loop` from 0 to `number` whose counter is int32, with x64 enabled or not.

    So what a body computes from int32 arrays and the counter stays int32.
    """
    # Where `jax_enable_x64` is set, Python numbers would be int64, and the counter of
    # a loop of one trip is.
    end = np.int32(number) if isinstance(number, int) else number.astype(np.int32)

    def step(i: jax.Array, carry: Tree) -> Tree:
        return body(lax.convert_element_type(i, np.int32), carry)

    return lax.fori_loop(np.int32(0), end, step, carry)


def map_blocks(function: Callable[[jax.Array], Tree], blocks: Blocks) -> Tree:
    """Joins `function(i)`, arrays `[size, ...]` of each block, into `[rows, ...]`."""
    return map_blocks_with(lambda i, _: (function(i), None), None, blocks)


def map_blocks_with(
    function: Callable[[jax.Array, Scratch], tuple[Tree, Scratch]],
    scratch: Scratch,
    blocks: Blocks,
) -> Tree:
    """`map_blocks` with scratch memory that each block leaves as it found it.

    A block that clears only the entries it wrote pays for these alone; a table made
    anew for every block would cost its whole size each time.
    """
    # The shapes of a block's results; nothing is computed.
    number = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = jax.eval_shape(function, number, scratch)[0]
    empty = jax.tree.map(
        lambda x: jnp.zeros((blocks.rows, *x.shape[1:]), x.dtype), shapes
    )

    def body(i: jax.Array, state: tuple[Tree, Scratch]) -> tuple[Tree, Scratch]:
        done, scratch = state
        parts, scratch = function(i, scratch)
        return blocks.put(done, parts, i), scratch

    return repeat(blocks.number, body, (empty, scratch))[0]


def take_rows(array: jax.Array, rows: jax.Array) -> jax.Array:
    """Gathers rows whose indices are known to be in range."""
    # Without the test of each index, and the NaN rows that the default mode fills in.
    return array.at[rows].get(mode="promise_in_bounds")
