"""Diffusion re-ranking (section 3.2, eq. 9 and 10).

A query's similarity to its nearest images spreads along the edges of the gallery's
mutual neighbour graph, by power iteration or by conjugate gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    ArrayLike,
    Count,
    check_choice,
    check_count,
    check_flag,
    check_masked_count,
    check_number,
    is_concrete,
    on_any_mesh,
)
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._blocks import divide, repeat
from dex_jax.neighbors._form import is_wide
from dex_jax.neighbors._mesh import row_shards
from dex_jax.neighbors._search import limit_count, self_lists
from dex_jax.neighbors._split import SplitRows
from dex_jax.rerank._diffusion_graph import (
    MutualGraph,
    block_size,
    mutual_graph,
    propagate,
)
from dex_jax.rerank._embeddings import Pair, all_asked, read_pair, search_pair
from dex_jax.rerank._query_expansion import clipped_power, first_few
from dex_jax.rerank._scan import Carry, Scan, Tile, all_scores

SOLVERS = ("power", "cg")
INITIALS = ("y", "zero")
POWER_STEPS = 25
# Relative residual at which conjugate gradients stop, near what float32 can reach.
_TOLERANCE = 1e-6


@on_any_mesh
def diffusion(
    query: ArrayLike,
    gallery: ArrayLike | SplitRows,
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
    remat: bool = False,
) -> jax.Array:
    """Scores the gallery by diffusing each query over the gallery's graph.

    Eq. 9-10. Two images are joined when each is among the `k` nearest of the other (an
    image takes one of its own places), with the weight `max(cos, 0)^gamma`; `S` is the
    symmetrically normalised graph; `y` holds `max(cos, 0)^gamma` of the query at its
    `k_query` nearest images. Power iteration repeats `f <- alpha S f + (1 - alpha) y`;
    25 steps at `alpha` 0.95 are far from converged, so their number is a part of the
    method. Images without a neighbour keep `(1 - alpha) y`.

    Outside of `jit` and on one device queries are padded inside to few sizes (see
    `nearest_neighbors`), so that other numbers of queries reuse compiled programs. CPUs
    and accelerators run different kernels, whose scores differ by rounding (see
    `dex_jax.neighbors.form`).

    Can be differentiated in `query`, `gallery`, `alpha` and `gamma`: the lists, and so
    the edges, are held fixed. In forward mode always; in reverse mode if `iterations`
    is a Python number, or `solver` is "cg", which solves one more system. The backward
    pass keeps `f` of all steps, `iterations` arrays `[Q, G]`; see `remat`.

    Args:
        query: `[Q, D]` numbers, finite, any row length but zero; read as float32.
        gallery: `[G, D]`, the same. Rows may be split over a mesh.
        k: neighbours in the graph, at least 1; beyond `G`: all of them, and one
            warning.
        k_query: images a query starts from; the same.
        alpha: share of the graph, in [0, 1); may be traced.
        gamma: power of the cosine, at least 0; may be traced.
        iterations: power steps, at least 0; may be traced.
        solver: "power", or "cg": the converged answer
            `(1 - alpha) (I - alpha S)^-1 y` by conjugate gradients.
        initial: the first `f` of the power iteration, "y" or "zero".
        k_max: if given, the static width of the graph's lists, and `k` may be traced:
            what lies beyond `k` is masked. Beyond `G`: all of them, and one warning.
        k_query_max: the same for `k_query`.
        remat: for reverse mode: the backward pass computes the steps of a block of
            queries anew, 32 on a CPU and up to 512 in the wide form, and keeps
            `iterations` arrays `[G, block]`. Changes no result.

    Returns:
        Scores `[Q, G]` float32, at least 0 up to rounding; larger is better.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, an option out of
            its range, a count above its maximum or traced without it, `iterations` or
            `initial` given to "cg", or `remat` that is no bool.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.1], [1.0, 0.5], [0.1, 1.0]])
        >>> scores = diffusion(jnp.array([[1.0, 0.0]]), gallery, k=2, k_query=1)
        >>> bool(scores[0, 1] > 0)  # reached over image 0 alone
        True
    """
    options, tiles = read_options(
        alpha, gamma, iterations, solver, initial, remat=remat
    )
    counts = check_counts(k, k_query, k_max, k_query_max)
    pair = read_pair(query, gallery)
    own, near = limit_counts(counts, pair.images)
    scan = diffusion_scan(
        search_pair(pair, k=near.width),
        self_lists(pair.gallery, k=own.width, size=pair.images),
        options._replace(k=own.value, k_query=near.value),
        tiles,
        pair,
    )
    return all_asked(all_scores(scan), pair)


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
    """The same counts, at most `size` each, with a warning where they were more."""
    own, near = counts
    return limit_count(own, size, "k"), limit_count(near, size, "k_query")


class Options(NamedTuple):
    """Options that may be traced; `k`, `k_query` are None where all entries count."""

    alpha: float | jax.Array
    gamma: float | jax.Array
    iterations: int | jax.Array
    k: jax.Array | None = None
    k_query: jax.Array | None = None


def read_options(
    alpha: float | jax.Array,
    gamma: float | jax.Array,
    iterations: int | jax.Array,
    solver: str,
    initial: str,
    *,
    remat: bool,
) -> tuple[Options, "Solve"]:
    """Reads all options but counts: what may be traced, and the tiles of the solver.

    Raises:
        ValueError: an option out of range; traced values pass unchecked.
    """
    check_choice(solver, "solver", SOLVERS)
    check_choice(initial, "initial", INITIALS)
    alpha = check_number(alpha, "alpha", least=0, below=1)
    gamma = check_number(gamma, "gamma", least=0)
    remat = check_flag(remat, "remat")
    known = None  # the number of steps, where the loop has a known length
    if is_concrete(iterations):
        number = check_count(iterations, "iterations", least=0)
        # An array is passed on as one: a program then serves any number.
        known = None if isinstance(iterations, jax.Array) else number
        iterations = iterations if known is None else number
    # Left at its default, `iterations` may stand beside solver="cg".
    if solver == "cg" and (known != POWER_STEPS or initial != "y"):
        raise ValueError(
            "iterations and initial belong to solver='power'; 'cg' runs until it has "
            f"converged, got iterations={iterations}, initial={initial!r}"
        )
    return Options(alpha, gamma, iterations), Solve(solver, initial, known, remat)


class _Whole(NamedTuple):
    """What every device sees whole."""

    lists: Neighbors  # [G, K], the gallery's own
    options: Options
    queries: jax.Array | None  # scalar int32, queries without padding; None: all rows


def diffusion_scan(
    start: Neighbors,
    lists: Neighbors,
    options: Options,
    tiles: "Solve",
    pair: Pair,
) -> Scan:
    """The scores of queries that start from lists `[Q, K']`, over lists `[G, K]`.

    On a mesh every device takes its share of the queries, and the whole graph: it has
    to exchange nothing between steps.
    """
    shards = row_shards(pair.gallery)
    # On a CPU blocks of padding are skipped. That makes the number of blocks depend on
    # data, which the wide form avoids, and which reverse mode does not allow.
    known = is_concrete(*jax.tree.leaves((start, lists, options)))
    queries = pair.queries if shards is None and known and not is_wide() else None
    return Scan(
        own=start,
        whole=_Whole(lists, options, queries),
        tiles=tiles,
        sizes=(start.ids.shape[0], pair.gallery.shape[0]),
        images=pair.images,
        split="queries",
        shards=shards,
    )


@dataclass(frozen=True)
class Solve:
    """Tiles of scores: some queries, all images each.

    Attributes:
        solver: one of `SOLVERS`.
        initial: one of `INITIALS`.
        iterations: power steps where their number is known when tracing, which
            makes a loop of known length; else None.
        remat: computes a block anew in the backward pass.
    """

    solver: str
    initial: str
    iterations: int | None = None
    remat: bool = False

    def __call__(
        self,
        start: Neighbors,
        whole: _Whole,
        take: Callable[[Carry, Tile], Carry],
        carry: Carry,
    ) -> Carry:
        lists, options, queries = whole
        graph = mutual_graph(lists, options.gamma, options.k)
        Q, G = start.ids.shape[0], lists.ids.shape[0]
        blocks = divide(Q, block_size(G).columns)
        weights = clipped_power(start.scores, options.gamma)
        weights = first_few(weights, options.k_query)  # [Q, K']
        column = jnp.arange(blocks.size, dtype=jnp.int32)[:, None]

        def scores(i: jax.Array) -> jax.Array:
            # A query a column [G, b], so that an edge adds a contiguous row of f.
            y = jnp.zeros((G, blocks.size), jnp.float32)
            place = graph.place[blocks.take(start.ids, i)]  # [b, K']
            f = self._solve(
                graph, options, y.at[place, column].set(blocks.take(weights, i))
            )
            return f[graph.place].T  # [b, G], in gallery order again

        some = jax.checkpoint(scores) if self.remat else scores

        def block(i: jax.Array, carry: Carry) -> Carry:
            return take(carry, Tile(some(i), blocks.start(i), jnp.int32(0)))

        number = blocks.number if queries is None else -(-queries // blocks.size)
        return repeat(number, block, carry)

    def _solve(self, graph: MutualGraph, options: Options, y: jax.Array) -> jax.Array:
        """Eq. 10: from `y` to `f` `[G, b]`, a query a column, in the graph's order."""
        alpha = jnp.asarray(options.alpha, jnp.float32)
        if self.solver == "cg":
            # The fixed point of the power iteration: (I - alpha S) f = (1 - alpha) y.
            most = _most_steps(alpha)
            # The derivative of a solution solves the same system.
            return lax.custom_linear_solve(
                lambda f: f - alpha * propagate(graph, f),
                (1 - alpha) * y,
                lambda matvec, right: conjugate_gradients(matvec, right, most=most),
                symmetric=True,
            )
        first = y if self.initial == "y" else jnp.zeros_like(y)

        def step(_: jax.Array, f: jax.Array) -> jax.Array:
            return alpha * propagate(graph, f) + (1 - alpha) * y

        number = options.iterations if self.iterations is None else self.iterations
        return repeat(number, step, first)


def _most_steps(alpha: float | jax.Array) -> jax.Array:
    """Steps after which CG has surely converged, with a margin for rounding.

    The eigenvalues of `I - alpha S` lie in [1 - alpha, 1 + alpha]. With `c` their
    largest ratio, each step multiplies the error by at most
    `(sqrt(c) - 1) / (sqrt(c) + 1)`.
    """
    root = jnp.sqrt((1 + alpha) / (1 - alpha))
    return jnp.ceil(root * jnp.log(2 * root / _TOLERANCE)).astype(jnp.int32)


class _Conjugate(NamedTuple):
    """What the loop of `conjugate_gradients` carries."""

    step: jax.Array  # scalar int32
    x: jax.Array  # [G, b] the solution so far
    residual: jax.Array  # [G, b]
    direction: jax.Array  # [G, b]
    size: jax.Array  # [1, b] squared length of the residual


def conjugate_gradients(
    matvec: Callable[[jax.Array], jax.Array], right: jax.Array, *, most: jax.Array
) -> jax.Array:
    """Solves `A x = b` for each column b of `right` `[G, b]`, A symmetric positive.

    Stops once every column has a residual of at most 1e-6 times its length, or after
    `most` steps.

    Args:
        matvec: from x `[G, b]` to A x.
        right: `[G, b]`.
        most: scalar int32.
    """

    def dot(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a * b, axis=0, keepdims=True)  # [1, b]

    def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
        # A column of zeros, or one solved exactly, stays where it is.
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    goal = _TOLERANCE**2 * dot(right, right)

    def unfinished(state: _Conjugate) -> jax.Array:
        return (state.step < most) & jnp.any(state.size > goal)

    def step(state: _Conjugate) -> _Conjugate:
        product = matvec(state.direction)
        rate = ratio(state.size, dot(state.direction, product))
        x = state.x + rate * state.direction
        residual = state.residual - rate * product
        size = dot(residual, residual)
        direction = residual + ratio(size, state.size) * state.direction
        return _Conjugate(state.step + 1, x, residual, direction, size)

    first = _Conjugate(
        jnp.int32(0), jnp.zeros_like(right), right, right, dot(right, right)
    )
    return lax.while_loop(unfinished, step, first).x
