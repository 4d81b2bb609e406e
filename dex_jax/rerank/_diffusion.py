"""Diffusion of query similarity over the mutual neighbour graph (eq. 9-10)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from dex_jax._checks import (
    Count,
    check_choice,
    check_count,
    check_masked_count,
    check_number,
    is_concrete,
)
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._mesh import RowShards, on_parts, part_start, row_shards
from dex_jax.neighbors._search import limit_count, search, self_lists
from dex_jax.rerank._diffusion_graph import (
    MutualGraph,
    block_size,
    mutual_graph,
    propagate,
)
from dex_jax.rerank._embeddings import Ranking, best, unit_pair
from dex_jax.rerank._kinds import Tile, adjusted, unmarked
from dex_jax.rerank._query_expansion import clipped_power, first_few

SOLVERS = ("power", "cg")
INITIALS = ("y", "zero")
POWER_STEPS = 25
# Relative residual at which conjugate gradients stop, near what float32 can reach.
_TOLERANCE = 1e-6


def diffusion(
    query: ArrayLike,
    gallery: ArrayLike,
    *,
    k: int | jax.Array = 50,
    k_query: int | jax.Array = 25,
    alpha: float | jax.Array = 0.95,
    gamma: float | jax.Array = 3.0,
    iterations: int | jax.Array = POWER_STEPS,
    solver: str = "power",
    initial: str = "y",
    k_max: int | None = None,
    k_query_max: int | None = None,
) -> jax.Array:
    """Scores the gallery by diffusing each query over the gallery's graph.

    Eq. 9-10. Two images are joined when each is among the `k` nearest of the other (an
    image takes one of its own places), with the weight `max(cos, 0)^gamma`; `S` is the
    symmetrically normalised graph; `y` holds `max(cos, 0)^gamma` of the query at its
    `k_query` nearest images. Power iteration repeats `f <- alpha S f + (1 - alpha) y`;
    25 steps at `alpha` 0.95 are far from converged, so their number is a part of the
    method. Images without a neighbour keep `(1 - alpha) y`.

    Args:
        query: `[Q, D]`, finite, any row length but zero.
        gallery: `[G, D]`, the same.
        k: neighbours in the graph; beyond `G`: all of them, and one warning.
        k_query: images a query starts from; the same.
        alpha: share of the graph, in [0, 1); may be traced.
        gamma: power of the cosine, at least 0; may be traced.
        iterations: power steps; may be traced.
        solver: "power", or "cg": the converged answer
            `(1 - alpha) (I - alpha S)^-1 y` by conjugate gradients.
        initial: the first `f` of the power iteration, "y" or "zero".
        k_max: if given, the static width of the graph's lists, and `k` may be traced:
            what lies beyond `k` is masked. Beyond `G`: all of them, and one warning.
        k_query_max: the same for `k_query`.

    Returns:
        Scores `[Q, G]`, at least 0 up to rounding.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, an option out of
            its range, a count above its maximum or traced without it, `iterations` or
            `initial` given to "cg".

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.1], [1.0, 0.5], [0.1, 1.0]])
        >>> scores = diffusion(jnp.array([[1.0, 0.0]]), gallery, k=2, k_query=1)
        >>> bool(scores[0, 1] > 0)  # reached over image 0 alone
        True
    """
    query, gallery = unit_pair(query, gallery)
    check_options(alpha, gamma, iterations, solver, initial)
    counts = check_counts(k, k_query, k_max, k_query_max)
    own, near = limit_counts(counts, gallery.shape[0])
    return diffuse_scores(
        search(query, gallery, k=near.width),
        self_lists(gallery, k=own.width),
        Options(alpha, gamma, iterations, own.value, near.value),
        solver=solver,
        initial=initial,
        shards=row_shards(gallery),
    )


def check_counts(
    k: int | jax.Array,
    k_query: int | jax.Array,
    k_max: int | None,
    k_query_max: int | None,
) -> tuple[Count, Count]:
    """Reads the entries of the gallery's and of the queries' lists."""
    return (
        check_masked_count(k, k_max, "k"),
        check_masked_count(k_query, k_query_max, "k_query"),
    )


def limit_counts(counts: tuple[Count, Count], size: int) -> tuple[Count, Count]:
    """The same, but at most the gallery."""
    own, near = counts
    return limit_count(own, size, "k"), limit_count(near, size, "k_query")


def check_options(
    alpha: float | jax.Array,
    gamma: float | jax.Array,
    iterations: int | jax.Array,
    solver: str,
    initial: str,
) -> None:
    """Refuses options out of range; traced values are taken as they are."""
    check_choice(solver, "solver", SOLVERS)
    check_choice(initial, "initial", INITIALS)
    check_number(alpha, "alpha", least=0, below=1)
    check_number(gamma, "gamma", least=0)
    if is_concrete(iterations):
        check_count(iterations, "iterations", least=0)
    given = not is_concrete(iterations) or iterations != POWER_STEPS
    if solver == "cg" and (given or initial != "y"):
        raise ValueError(
            "iterations and initial belong to solver='power'; 'cg' runs until it has "
            f"converged, got iterations={iterations}, initial={initial!r}"
        )


class Options(NamedTuple):
    """What may be traced; `k` and `k_query` are None where lists count to their end."""

    alpha: float | jax.Array
    gamma: float | jax.Array
    iterations: int | jax.Array
    k: jax.Array | None = None
    k_query: jax.Array | None = None


@functools.partial(jax.jit, static_argnames=("solver", "initial", "shards"))
def diffuse_scores(
    start: Neighbors,
    graph: Neighbors,
    options: Options,
    *,
    solver: str,
    initial: str,
    shards: RowShards | None = None,
) -> jax.Array:
    """Diffuses queries `[Q, K']` over lists `[G, K]`; scores `[Q, G]`.

    With `shards` every device takes its share of the queries, and the whole graph.
    """
    G = graph.ids.shape[0]

    def part(
        start: Neighbors, whole: tuple[Neighbors, Options], _: jax.Array
    ) -> jax.Array:
        def write(first: jax.Array, scores: jax.Array, out: jax.Array) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(out, scores, first, 0)

        solve = functools.partial(_solver, solver=solver, initial=initial)
        empty = jnp.zeros((start.ids.shape[0], G))
        return _over_blocks(start, *whole, solve, write, empty)

    return _over_queries(part, start, (graph, options), shards)


@functools.partial(jax.jit, static_argnames=("solver", "initial", "top", "shards"))
def diffuse_ranking(
    start: Neighbors,
    graph: Neighbors,
    options: Options,
    *,
    solver: str,
    initial: str,
    top: int,
    tiles: tuple[Tile, ...] = (),
    shards: RowShards | None = None,
) -> Ranking:
    """As `diffuse_scores`, but keeps the `top` best after the steps `tiles`."""

    def part(start: Neighbors, whole, own: jax.Array) -> Ranking:
        graph, options, tiles = whole
        Q = start.ids.shape[0]

        def write(first: jax.Array, scores: jax.Array, out: Ranking) -> Ranking:
            kept = best(adjusted(scores, tiles, own + first, jnp.int32(0)), top)
            return jax.tree.map(
                lambda whole, part: lax.dynamic_update_slice_in_dim(
                    whole, part, first, 0
                ),
                out,
                kept,
            )

        solve = functools.partial(_solver, solver=solver, initial=initial)
        empty = Ranking(jnp.zeros((Q, top), jnp.int32), jnp.zeros((Q, top)))
        return unmarked(_over_blocks(start, graph, options, solve, write, empty))

    return _over_queries(part, start, (graph, options, tiles), shards)


def _over_queries(part, start: Neighbors, whole, shards: RowShards | None):
    """Divides lists `[Q, K']` among the devices, in shares of one size.

    `part(start, whole, first)` works on a share that begins at query `first`. The last
    ones begin early, like blocks; what they do twice is done alike.
    """
    if shards is None:
        return part(start, whole, jnp.int32(0))
    Q = start.ids.shape[0]
    size = -(-Q // shards.parts)

    def share(start: Neighbors, whole):
        first = jnp.minimum(part_start(shards, size), Q - size)
        return part(start, whole, first)

    run = on_parts(share, shards, join=0)
    if Q % shards.parts == 0:
        return run(start, whole)
    firsts = np.minimum(np.arange(shards.parts) * size, Q - size)
    rows = (firsts[:, None] + np.arange(size)).ravel()
    found = run(jax.tree.map(lambda x: x[rows], start), whole)
    query = np.arange(Q)
    place = query + (query // size) * size - firsts[query // size]
    return jax.tree.map(lambda x: x[place], found)


def _over_blocks(
    start: Neighbors, graph: Neighbors, options: Options, solver, write, out
):
    """Solves for blocks of queries and writes what is kept of their scores `[b, G]`."""
    links = mutual_graph(graph, options.gamma, options.k)
    solve = solver(links, options)
    Q = start.ids.shape[0]
    size = -(-Q // -(-Q // block_size().columns))  # queries at a time
    weights = clipped_power(start.scores, options.gamma)
    weights = first_few(weights, options.k_query)  # [Q, K']
    column = jnp.arange(size)[:, None]
    G = graph.ids.shape[0]

    def block(number: jax.Array, out):
        first = jnp.minimum(number * size, Q - size)
        ids = lax.dynamic_slice_in_dim(start.ids, first, size)
        y = jnp.zeros((G, size))
        near = lax.dynamic_slice_in_dim(weights, first, size)
        f = solve(y.at[links.place[ids], column].set(near))
        return write(first, f[links.place].T, out)

    return lax.fori_loop(0, -(-Q // size), block, out)


def _solver(links: MutualGraph, options: Options, *, solver: str, initial: str):
    """Returns the function from `y` to `f`, a query a column, in the graph's order."""
    spread, alpha = functools.partial(propagate, links), options.alpha

    def power(y: jax.Array) -> jax.Array:
        first = y if initial == "y" else jnp.zeros_like(y)
        return lax.fori_loop(
            0,
            options.iterations,
            lambda _, f: alpha * spread(f) + (1 - alpha) * y,
            first,
        )

    def cg(y: jax.Array) -> jax.Array:
        return conjugate_gradients(
            lambda f: f - alpha * spread(f),
            (1 - alpha) * y,
            most=_most_steps(alpha),
        )

    return power if solver == "power" else cg


def _most_steps(alpha: float | jax.Array) -> jax.Array:
    """Steps after which CG has surely converged, with a margin for rounding.

    The eigenvalues of `I - alpha S` lie in [1 - alpha, 1 + alpha]; the error falls
    by `(sqrt(c) - 1) / (sqrt(c) + 1)` a step, with `c` their largest ratio.
    """
    root = jnp.sqrt((1 + alpha) / (1 - alpha))
    return jnp.ceil(root * jnp.log(2 * root / _TOLERANCE)).astype(jnp.int32)


def conjugate_gradients(matvec, right: jax.Array, *, most: jax.Array) -> jax.Array:
    """Solves `A x = b` for each column of `right` until all residuals are small.

    Stops once every column has `|r| <= 1e-6 |b|`, or after `most` steps.
    """

    def dot(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a * b, axis=0, keepdims=True)  # [1, b]

    def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
        # A column of zeros, or one solved exactly, stays where it is.
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    goal = _TOLERANCE**2 * dot(right, right)

    def unfinished(state) -> jax.Array:
        return (state[0] < most) & jnp.any(state[4] > goal)

    def step(state):
        number, x, r, p, size = state
        Ap = matvec(p)
        rate = ratio(size, dot(p, Ap))
        x, r = x + rate * p, r - rate * Ap
        new = dot(r, r)
        return number + 1, x, r, r + ratio(new, size) * p, new

    zero = jnp.zeros_like(right)
    state = (jnp.int32(0), zero, right, right, dot(right, right))
    return lax.while_loop(unfinished, step, state)[1]
