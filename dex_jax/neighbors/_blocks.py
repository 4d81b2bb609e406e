"""Blocks of rows, which bound the memory of a kernel."""

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
    the same values. Where a row must count once only, `fresh` tells which are new.

    Attributes:
        rows: how many there are.
        size: of a block, at most `rows`.
    """

    rows: int
    size: int

    @property
    def number(self) -> int:
        """How many blocks there are."""
        return -(-self.rows // self.size)

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
        """Writes the rows of block `i` into every array of a tree."""
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
    size = -(-rows // -(-rows // max(1, most)))
    return Blocks(rows, min(-(-size // multiple) * multiple, rows))


def repeat(
    number: int | jax.Array, body: Callable[[jax.Array, Tree], Tree], carry: Tree
) -> Tree:
    """`fori_loop` from 0 whose counter leaves int32 numbers int32, in any mode.

    A number known in advance makes the counter of weak type, a traced one is int32.
    """
    end = np.int32(number) if isinstance(number, int) else number.astype(np.int32)
    return lax.fori_loop(np.int32(0), end, body, carry)


def map_blocks(function: Callable[[jax.Array], Tree], blocks: Blocks) -> Tree:
    """Joins `function(i)`, arrays `[size, ...]` of each block, into `[rows, ...]`."""
    return map_blocks_with(lambda i, _: (function(i), None), None, blocks)


def map_blocks_with(
    function: Callable[[jax.Array, Scratch], tuple[Tree, Scratch]],
    scratch: Scratch,
    blocks: Blocks,
) -> Tree:
    """`map_blocks` with working memory that each block leaves as it found it.

    A table that is cleared where it was written costs nothing per unused entry; one
    that is made anew for every block would cost rows x its width in all.
    """
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
    return array.at[rows].get(mode="promise_in_bounds")
