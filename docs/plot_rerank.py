"""Draws the pictures of docs/rerank.md: `python docs/plot_rerank.py`.

Toy embeddings: points of the plane, lifted to the unit sphere so that near points have
a large cosine.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dex_jax import rerank

FOLDER = Path(__file__).parent / "rerank"
COLOURS = np.array(["#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860"])


def lift(points: np.ndarray) -> np.ndarray:
    """Points of the plane `[N, 2]` as directions `[N, 3]`."""
    return np.concatenate([points, np.full((len(points), 1), 1.5)], axis=1)


def drop(rows: np.ndarray) -> np.ndarray:
    """The points of the plane that directions stand for."""
    rows = np.asarray(rows)
    return 1.5 * rows[:, :2] / rows[:, 2:]


def panels(titles: list[str]) -> tuple[Figure, list[Axes]]:
    """A row of bare square axes."""
    figure, axes = plt.subplots(1, len(titles), figsize=(3 * len(titles), 2.7))
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure, list(axes)


def save(figure: Figure, name: str) -> None:
    """Writes a small PNG."""
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", dpi=90)
    plt.close(figure)


def expansion() -> None:
    """alpha-QE takes the nearest images, DEx the images of the nearest tracklets."""
    rng = np.random.default_rng(3)
    own = np.linspace(-0.75, 0.95, 8)[:, None] * np.array([[1.0, 0.25]])
    own = own + 0.05 * rng.normal(size=(8, 2))
    other = np.array([0.0, -0.4]) + 0.09 * rng.normal(size=(7, 2))
    points, tracks = np.concatenate([own, other]), np.repeat([0, 1], [8, 7])
    query = np.array([[-0.02, -0.12]])
    plain = rerank.alpha_query_expansion(lift(query), lift(points), k=6)
    dual = rerank.tracklet_query_expansion(lift(query), lift(points), tracks, k=6)
    figure, axes = panels(["alpha-QE, k = 6", "DEx, k = 6"])
    for ax, moved in zip(axes, (plain, dual), strict=True):
        ax.scatter(*points.T, c=COLOURS[tracks], s=22)
        ax.set_ylim(-0.8, 0.6)
        ax.scatter(*query.T, marker="*", c="black", s=90)
        ax.annotate(
            "",
            drop(np.asarray(moved))[0].tolist(),
            query[0].tolist(),
            arrowprops={"arrowstyle": "->", "lw": 2},
        )
    save(figure, "expansion")


def augmentation() -> None:
    """Noisy images move towards their neighbours."""
    rng = np.random.default_rng(0)
    tracks = np.repeat(np.arange(4), 12)
    centres = np.array([[-0.8, -0.6], [0.8, -0.5], [-0.5, 0.7], [0.7, 0.7]])
    points = centres[tracks] + 0.28 * rng.normal(size=(48, 2))
    moved = drop(np.asarray(rerank.database_augmentation(lift(points), k=8)))
    figure, axes = panels(["gallery", "after DBA, k = 8"])
    for ax, shown in zip(axes, (points, moved), strict=True):
        ax.scatter(*shown.T, c=COLOURS[tracks], s=18)
        ax.set_xlim(-1.6, 1.6)
        ax.set_ylim(-1.5, 1.5)
    save(figure, "augmentation")


def moons() -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved arcs and a query at the end of one."""
    rng = np.random.default_rng(0)
    angle = np.concatenate([np.linspace(0, np.pi, 60)] * 2)
    upper = np.repeat([True, False], 60)
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    points = np.stack([x, y], axis=1) + 0.05 * rng.normal(size=(120, 2))
    return points, points[:1]


def scored(name: str, title: str, scores: np.ndarray) -> None:
    """Cosine and another score of the same images, as ranks."""
    points, query = moons()
    cosine = rerank.cosine_similarity(lift(query), lift(points))
    figure, axes = panels(["rank by cosine", title])
    for ax, values in zip(axes, (cosine, scores), strict=True):
        rank = np.argsort(np.argsort(-np.asarray(values)[0]))
        ax.scatter(*points.T, c=rank, s=18, cmap="viridis_r")
        ax.scatter(*query.T, marker="*", c="black", s=90)
    save(figure, name)


def ranking() -> None:
    """k-reciprocal and diffusion follow the arc that the query lies on."""
    points, query = moons()
    scores = rerank.k_reciprocal(lift(query), lift(points), k1=14, k2=6, lambda_=0.1)
    scored("k_reciprocal", "rank by k-reciprocal", np.asarray(scores))
    scores = rerank.diffusion(
        lift(query), lift(points), k=7, k_query=5, alpha=0.99, solver="cg"
    )
    scored("diffusion", "rank by diffusion", np.asarray(scores))


def pull_in() -> None:
    """A ranking before and after tracklets are pulled in, best on the left."""
    rng = np.random.default_rng(1)
    tracks = np.repeat(np.arange(6), 5)
    scores = (np.array([0.9, 0.7, 0.6, 0.5, 0.3, 0.1])[tracks])[None]
    scores = scores + 0.25 * rng.normal(size=scores.shape)
    pulled = rerank.tracklet_pull_in(scores, tracks)
    figure, axes = plt.subplots(2, 1, figsize=(6, 1.5))
    titles = ["ranking", "tracklets pulled in"]
    for ax, title, values in zip(axes, titles, (scores, pulled), strict=True):
        order = np.asarray(rerank.top_k(values, k=30).ids)[0]
        ax.bar(np.arange(30), 1, width=0.9, color=COLOURS[tracks[order]])
        ax.set_title(title)
        ax.axis("off")
    save(figure, "pull_in")


def main() -> None:
    """Draws all pictures."""
    mpl.use("Agg")
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9})
    FOLDER.mkdir(exist_ok=True)
    expansion()
    augmentation()
    ranking()
    pull_in()


if __name__ == "__main__":
    main()
