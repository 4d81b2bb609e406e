"""What the benchmark runs: kernels through the public API, and their peers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from clustered import Set
from peers import diffusion as peer_diffusion
from peers import expansion, metrics, reciprocal, search

# Above this pool a float32 array of pool x pool passes 6 GiB, and peers make several.
DENSE_LIMIT = 40_000
OURS = "dex_jax"
# Queries and images of the rows about first calls.
FEW = (500, 4_000)
PRODUCT = "matrix product, each pair of the pool once"


class Job(NamedTuple):
    """One implementation of one kernel.

    Attributes:
        kernel: what is computed; implementations of it are compared.
        name: the implementation.
        prepare: takes the set, gives the call that is timed.
        repeats: timed calls, one warm call before them.
        dense: makes arrays of pool x pool.
        same: gives what `dex_jax` gives, so that results are compared.
        products: how often all pairs of the pool must be multiplied.
        stands_in_for: a package; the job is needed only where that is missing.
    """

    kernel: str
    name: str
    prepare: Callable[[Set], Callable[[], Any]]
    repeats: int = 3
    dense: bool = False
    same: bool = True
    products: int = 0
    stands_in_for: str = ""


def _jax(build: Callable[..., Callable[[], Any]]) -> Callable[[Set], Any]:
    """Puts the embeddings on the device before the clock starts."""

    def prepare(data: Set) -> Callable[[], Any]:
        import jax

        query, gallery = jax.device_put((data.query, data.gallery))
        jax.block_until_ready((query, gallery))
        call = build(query, gallery, data)
        return lambda: jax.block_until_ready(call())

    return prepare


def _pool(data: Set) -> np.ndarray:
    return np.concatenate([data.query, data.gallery])


def _self_knn(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax.numpy as jnp

    from dex_jax.neighbors import nearest_neighbors

    pool = jnp.concatenate([query, gallery])
    return lambda: nearest_neighbors(pool, pool, k=100, exclude_self=True).scores


def _search(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    from dex_jax.neighbors import nearest_neighbors

    return lambda: nearest_neighbors(query, gallery, k=100).scores


def _level_one(name: str, **options: Any) -> Callable[..., Callable[[], Any]]:
    def build(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
        from dex_jax import rerank

        function = getattr(rerank, name)
        arrays = (gallery,) if name == "database_augmentation" else (query, gallery)
        if name == "tracklet_query_expansion":
            arrays = (*arrays, data.tracklets)
        return functools.partial(function, *arrays, **options)

    return build


def _chain(spec: str) -> Callable[..., Callable[[], Any]]:
    def build(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
        import jax

        from dex_jax import rerank

        pipeline = rerank.parse(spec)
        tracklets = jax.numpy.asarray(data.tracklets)
        embeddings = rerank.Embeddings(query, gallery, tracklets)
        return lambda: pipeline(embeddings, top=100).scores

    return build


def _swept(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    from dex_jax.rerank import k_reciprocal

    points = jnp.linspace(0, 1, 24)
    return lambda: jax.vmap(
        lambda point: k_reciprocal(query, gallery, lambda_=point)[:, :100]
    )(points)


def _one_by_one(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax.numpy as jnp

    from dex_jax.rerank import k_reciprocal

    def call() -> Any:
        points = np.linspace(0, 1, 24, dtype=np.float32)
        kept = [
            k_reciprocal(query, gallery, lambda_=float(point))[:, :100]
            for point in points
        ]
        return jnp.stack(kept)

    return call


def _swept_k(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    from dex_jax.rerank import tracklet_query_expansion

    tracklets = jax.device_put(data.tracklets)
    counts = jnp.arange(1, 25)
    return lambda: jax.vmap(
        lambda k: tracklet_query_expansion(query, gallery, tracklets, k=k, k_max=24)
    )(counts)


def _k_one_by_one(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    from dex_jax.rerank import tracklet_query_expansion

    tracklets = jax.device_put(data.tracklets)
    return lambda: jnp.stack(
        [tracklet_query_expansion(query, gallery, tracklets, k=k) for k in range(1, 25)]
    )


def _first(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    from dex_jax.rerank import k_reciprocal

    query, gallery = query[: FEW[0]], gallery[: FEW[1]]
    return lambda: k_reciprocal(query, gallery, k1=20, k2=6, lambda_=0.3)


def _by_chance(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax

    from dex_jax.rerank import k_reciprocal

    counts = np.random.default_rng(0).integers(1, 1 + min(512, len(query)), 50)
    gallery, queries = gallery[: FEW[1]], [data.query[:count] for count in counts]

    def call(some: np.ndarray) -> Any:
        scores = k_reciprocal(some, gallery, k1=20, k2=6, lambda_=0.3)
        return jax.block_until_ready(scores)

    return lambda: [call(some) for some in queries][-1]


def _few(data: Set) -> Set:
    return data._replace(query=data.query[: FEW[0]], gallery=data.gallery[: FEW[1]])


def _evaluate(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    import jax

    from dex_jax.metrics import evaluate

    scores = jax.device_put(data.query @ data.gallery.T)
    return lambda: (
        evaluate(
            scores,
            query_identities=data.query_identities,
            gallery_identities=data.gallery_identities,
        ).mean_ap
    )


def _product(query: Any, gallery: Any, data: Set) -> Callable[[], Any]:
    """The floor: the product of each pair of the pool once, in tiles, hardly read.

    The tiles on the diagonal are whole: some 5 % more than half of all pairs. To reduce
    the tiles would take another third of the time.
    """
    import jax
    import jax.numpy as jnp

    pool = jnp.concatenate([query, gallery])
    N = pool.shape[0]
    blocks = -(-N // 1024)
    size = -(-N // blocks)
    pairs = np.minimum(np.stack(np.triu_indices(blocks), axis=1) * size, N - size)

    @jax.jit
    def run(pool: Any) -> Any:
        def tile(pair: Any) -> Any:
            rows = jax.lax.dynamic_slice_in_dim(pool, pair[0], size)
            columns = jax.lax.dynamic_slice_in_dim(pool, pair[1], size)
            scores = jnp.matmul(rows, columns.T, precision="highest")
            return scores[0] + scores[-1]

        return jax.lax.map(tile, jnp.asarray(pairs))

    return lambda: run(pool)


def _scores_of(data: Set, peer: Callable[..., Any]) -> Callable[[], Any]:
    scores = data.query @ data.gallery.T
    labels = data.query_identities, data.gallery_identities
    return lambda: peer(scores, *labels)


def _peer_self_knn(data: Set, find: Callable[..., Any]) -> Callable[[], Any]:
    pool = _pool(data)
    return lambda: find(pool, pool, 101)[0][:, 1:]


def _dense(data: Set, peer: Callable[..., Any], **options: Any) -> Callable[[], Any]:
    def call() -> Any:
        distance = peer(data.query, data.gallery, **options)
        return 1 - distance

    return call


def _reciprocal(kernel: str, k1: int, k2: int, lambda_: float) -> list[Job]:
    options = {"k1": k1, "k2": k2, "lambda_": lambda_}
    packaged, jaccard = reciprocal.fastreid_package, reciprocal.faiss_jaccard
    return [
        Job(kernel, OURS, _jax(_level_one("k_reciprocal", **options)), products=1),
        Job(
            kernel,
            "fastreid 1.4 (numpy)",
            lambda d: _dense(d, packaged, **options),
            repeats=0,
            dense=True,
        ),
        Job(
            kernel,
            "numpy transcription",
            lambda d: _dense(d, reciprocal.dense_numpy, **options),
            repeats=0,
            dense=True,
            stands_in_for="fastreid",
        ),
        Job(
            kernel,
            "faiss + numpy Jaccard",
            lambda d: _dense(d, jaccard, k1=k1, k2=k2),
            repeats=0,
            dense=True,
            same=False,
        ),
    ]


JOBS = [
    Job(PRODUCT, OURS, _jax(_product), products=1),
    Job("neighbours, pool x pool, k 100", OURS, _jax(_self_knn), products=1),
    Job(
        "neighbours, pool x pool, k 100",
        "faiss-cpu",
        lambda d: _peer_self_knn(d, search.faiss_search),
    ),
    Job(
        "neighbours, pool x pool, k 100",
        "numpy blocks",
        lambda d: _peer_self_knn(d, search.numpy_search),
        repeats=1,
    ),
    Job("search, k 100", OURS, _jax(_search)),
    Job(
        "search, k 100",
        "faiss-cpu",
        lambda d: lambda: search.faiss_search(d.query, d.gallery, 100)[0],
    ),
    Job("alpha-QE", OURS, _jax(_level_one("alpha_query_expansion"))),
    Job(
        "alpha-QE",
        "faiss + numpy",
        lambda d: lambda: expansion.alpha_query_expansion(d.query, d.gallery),
    ),
    Job(
        "alpha-QE",
        "fastreid 1.4 (torch)",
        lambda d: lambda: expansion.fastreid_package(d.query, d.gallery),
        repeats=1,
        dense=True,
        same=False,
    ),
    Job("DEx", OURS, _jax(_level_one("tracklet_query_expansion"))),
    Job(
        "DEx",
        "numpy",
        lambda d: (
            lambda: expansion.tracklet_query_expansion(d.query, d.gallery, d.tracklets)
        ),
    ),
    Job("DBA, k 10", OURS, _jax(_level_one("database_augmentation")), products=1),
    Job(
        "DBA, k 10",
        "faiss + numpy",
        lambda d: lambda: expansion.database_augmentation(d.gallery),
    ),
    *_reciprocal("k-reciprocal 60/30", 60, 30, 0.5),
    *_reciprocal("k-reciprocal 20/6", 20, 6, 0.3),
    Job("diffusion, 25 steps", OURS, _jax(_level_one("diffusion")), products=1),
    Job(
        "diffusion, 25 steps",
        "faiss + scipy CSR",
        lambda d: lambda: peer_diffusion.csr_diffusion(d.query, d.gallery),
        repeats=1,
    ),
    Job("diffusion, cg", OURS, _jax(_level_one("diffusion", solver="cg")), products=1),
    *(
        Job(f"chain {spec}, top 100", OURS, _jax(_chain(spec)), products=2)
        for spec in ("dex,dba,k_reciprocal", "dex,dba,diffusion")
    ),
    *(
        Job(f"first call, Q {FEW[0]}, G {FEW[1]:,}, k-reciprocal 20/6", *rest)
        for rest in (
            (OURS, _jax(_first), 0),
            (
                "numpy transcription",
                lambda d: _dense(
                    _few(d), reciprocal.dense_numpy, k1=20, k2=6, lambda_=0.3
                ),
                0,
            ),
        )
    ),
    Job("50 calls, Q <= 512 by chance, k-reciprocal 20/6", OURS, _jax(_by_chance), 0),
    Job("the same again", OURS, _jax(_by_chance)),
    Job("24 values of lambda", OURS, _jax(_swept), repeats=1),
    Job("24 values of lambda", "24 calls", _jax(_one_by_one), repeats=0),
    Job("24 values of k, DEx", OURS, _jax(_swept_k), repeats=1),
    Job("24 values of k, DEx", "24 calls", _jax(_k_one_by_one), repeats=1),
    Job("mAP", OURS, _jax(_evaluate), repeats=5),
    Job(
        "mAP",
        "fastreid 1.4 (cython)",
        lambda d: _scores_of(d, metrics.cython_map),
        repeats=2,
    ),
    Job(
        "mAP",
        "numpy argsort",
        lambda d: _scores_of(d, metrics.argsort_map),
        repeats=2,
    ),
]
