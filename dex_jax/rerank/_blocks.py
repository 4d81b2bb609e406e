"""Loops over blocks of rows that bound the memory of a kernel."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")
Scratch = TypeVar("Scratch")


def map_blocks(function: Callable[[jax.Array], Tree], *, rows: int, block: int) -> Tree:
    """Joins `function(start)`, arrays of `block` rows each, into arrays of `rows`.

    `block` is at most `rows`. The last block begins early rather than ending outside,
    so no input is padded; its rows are then computed twice, to the same values.
    """
    return map_blocks_with(
        lambda start, _: (function(start), None), None, rows=rows, block=block
    )


def map_blocks_with(
    function: Callable[[jax.Array, Scratch], tuple[Tree, Scratch]],
    scratch: Scratch,
    *,
    rows: int,
    block: int,
) -> Tree:
    """`map_blocks` with working memory that each block leaves as it found it.

    A table that is cleared where it was written costs nothing per unused entry; one
    that is made anew for every block would cost rows x its width in all.
    """
    start = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = jax.eval_shape(function, start, scratch)[0]
    empty = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), shapes)

    def body(i: jax.Array, state: tuple[Tree, Scratch]) -> tuple[Tree, Scratch]:
        done, scratch = state
        start = jnp.minimum(i * block, rows - block)
        parts, scratch = function(start, scratch)
        done = jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, start, 0),
            done,
            parts,
        )
        return done, scratch

    return lax.fori_loop(0, -(-rows // block), body, (empty, scratch))[0]


def even_block(rows: int, most: int) -> int:
    """The size of equal blocks of at most `most` rows that waste the least."""
    blocks = -(-rows // max(1, most))
    return -(-rows // blocks)


def take_rows(array: jax.Array, rows: jax.Array) -> jax.Array:
    """Gathers rows whose indices are known to be in range."""
    return array.at[rows].get(mode="promise_in_bounds")
