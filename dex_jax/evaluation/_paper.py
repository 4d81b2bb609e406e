"""Tables 2 to 6 of the paper: what each row computes, and the paper's own figures."""

from typing import NamedTuple

from dex_jax.rerank import Pipeline, chain, parse

ALL_SCALES = (0.9, 1.0, 1.1, 1.2)
PAPER_DATA = (
    "CityFlow-ReID, validation on 100 identities held out of training, ResNet50-IBN-a"
)

Figures = tuple[float | None, float | None, float | None]


class Row(NamedTuple):
    """One experiment.

    Attributes:
        label: what the table calls it.
        pipeline: the re-ranking steps.
        scales: the image scales of the descriptors; None for those of the command.
        paper: mAP, CMC@1 and CMC@5 in percent; None where the paper gives none.
    """

    label: str
    pipeline: Pipeline
    scales: tuple[float, ...] | None = None
    paper: Figures = (None, None, None)

    @property
    def chain(self) -> str:
        """The steps as text."""
        return str(self.pipeline)


class Table(NamedTuple):
    """A table of the paper; its first row is what the others are compared with."""

    title: str
    rows: tuple[Row, ...]


def _row(
    label: str, text: str, scales: tuple[float, ...] | None, paper: Figures
) -> Row:
    return Row(label, parse(text), scales, paper)


def _expansion_rows() -> tuple[Row, ...]:
    figures = {
        ("AQE", "aqe", (1.0,)): (74.6, 75.4, 76.6, 77.1),
        ("alpha-QE", "alpha_qe", (1.0,)): (74.5, 75.3, 76.6, 77.2),
        ("DEx, single scale", "dex", (1.0,)): (76.6, 77.1, 77.6, 77.9),
        ("DEx, multi-scale", "dex", ALL_SCALES): (77.7, 78.0, 78.4, 78.5),
    }
    return tuple(
        _row(f"{label}, k {k}", f"{step}(k={k})", scales, (mean_ap, None, None))
        for (label, step, scales), row in figures.items()
        for k, mean_ap in zip((5, 10, 20, 40), row, strict=True)
    )


TABLES = {
    "table2": Table(
        "Table 2, image scale",
        (
            _row("scale 1", "none", (1.0,), (72.4, 87.9, 91.4)),
            _row("scale 0.9", "none", (0.9,), (69.3, 87.2, 90.4)),
            _row("scale 1.1", "none", (1.1,), (71.6, 87.7, 91.5)),
            _row("scale 1.2", "none", (1.2,), (70.8, 88.2, 91.4)),
            _row("all scales", "none", ALL_SCALES, (73.8, 89.0, 92.0)),
        ),
    ),
    "table3": Table(
        "Table 3, query expansion",
        (_row("baseline", "none", (1.0,), (72.4, 87.9, 91.4)), *_expansion_rows()),
    ),
    "table4": Table(
        "Table 4, diffusion",
        (
            _row("baseline", "none", None, (72.4, 87.9, 91.4)),
            *(
                _row(
                    f"diffusion, k {k}, k_q {k_query}",
                    f"diffusion(k={k},k_query={k_query})",
                    None,
                    figures,
                )
                for k, k_query, figures in (
                    (25, 25, (80.1, 90.5, 92.0)),
                    (50, 25, (82.2, 92.2, 93.6)),
                    (100, 25, (81.4, 91.4, 93.8)),
                    (25, 50, (80.6, 90.7, 91.9)),
                    (50, 50, (82.6, 92.1, 93.7)),
                    (100, 50, (81.4, 91.4, 93.8)),
                )
            ),
        ),
    ),
    "table5": Table(
        "Table 5, database augmentation",
        (
            _row("baseline", "none", None, (72.4, 87.9, 91.4)),
            _row("DBA, k 5", "dba(k=5)", None, (76.0, 86.7, 91.2)),
            _row("DBA, k 10", "dba(k=10)", None, (76.9, 86.1, 91.9)),
            _row("DBA, k 20", "dba(k=20)", None, (78.1, 87.0, 92.0)),
            _row("DBA, k 40", "dba(k=40)", None, (79.2, 86.7, 91.7)),
        ),
    ),
    "table6": Table(
        "Table 6, re-ranking",
        (
            _row("baseline", "none", None, (72.4, 87.9, 91.4)),
            _row("DEx", "dex", None, (78.4, 93.3, 94.7)),
            _row("DBA", "dba", None, (76.9, 86.1, 91.9)),
            _row("k-reciprocal", "k_reciprocal", None, (80.4, 91.8, 93.9)),
            _row("diffusion", "diffusion", None, (82.2, 92.2, 93.6)),
            _row("tracklet", "tracklet", None, (76.7, 87.9, 88.0)),
            _row("DEx + DBA", "dex,dba", None, (81.8, 89.6, 94.1)),
            _row("DEx + k-reciprocal", "dex,k_reciprocal", None, (82.5, 94.4, 95.2)),
            _row("DEx + diffusion", "dex,diffusion", None, (84.3, 94.4, 95.4)),
            _row(
                "DEx + DBA + k-reciprocal",
                "dex,dba,k_reciprocal",
                None,
                (83.7, 88.6, 94.0),
            ),
            _row(
                "DEx + DBA + diffusion", "dex,dba,diffusion", None, (85.0, 92.6, 94.7)
            ),
        ),
    ),
}


def rows_for(rerank: str) -> Table:
    """Returns the table of that name, or the baseline and the chain itself.

    Raises:
        ValueError: neither a table nor a chain; see `dex_jax.rerank.parse`.

    Example:
        >>> [row.pipeline for row in rows_for("dex, dba").rows]
        [none, dex,dba]
    """
    if rerank in TABLES:
        return TABLES[rerank]
    pipeline = parse(rerank)
    baseline = Row("baseline", chain())
    if not pipeline.steps:
        return Table("Cosine similarity", (baseline,))
    return Table("Re-ranking", (baseline, Row(str(pipeline), pipeline)))
