"""Grids over options of a chain: their cells, and what is refused before work."""

from dataclasses import replace

import numpy as np
import pytest

from dex_jax.evaluation import read_sweep, sweep
from dex_jax.evaluation._results import score_chain
from dex_jax.rerank import parse


@pytest.mark.parametrize(
    ("chain", "text", "cells"),
    [
        ("dex(k=5),dba", "dex.alpha=0,0.5", ["alpha=0", "alpha=0.5"]),
        ("dex(k=5),dba", "dex.alpha=2.0,2.5", ["", "alpha=2.5"]),
        ("dex,dba", "dex.k=5,9", ["k=5,k_max=9", "k=9,k_max=9"]),
        ("dex(k_max=30),dba", "dex.k=5", ["k=5,k_max=30"]),
        (
            "dex,dba",
            "dex.alpha=0,1; dex.k=1e1",
            ["k=10,alpha=0,k_max=10", "k=10,alpha=1,k_max=10"],
        ),
    ],
)
def test_cells_are_chains_with_the_options_changed(chain, text, cells):
    kept = "k=5," if "k=5)" in chain else ""
    expected = [
        str(parse(f"dex({kept}{c})".replace(",)", ")") + ",dba")) for c in cells
    ]
    assert [str(p) for p in read_sweep(text, parse(chain)).pipelines()] == expected


def test_k1_stays_as_narrow_as_each_cell_asks():
    grid = read_sweep("k_reciprocal.k1=5,9;k_reciprocal.k2=2", parse("k_reciprocal"))
    assert [str(pipeline) for pipeline in grid.pipelines()] == [
        "k_reciprocal(k1=5,k2=2,k2_max=2)",
        "k_reciprocal(k1=9,k2=2,k2_max=2)",
    ]


def test_every_cell_is_scored_in_its_place(file, protocol):
    # Queries so poor that every option shows.
    noise = np.random.default_rng(1).normal(size=(6, 16)).astype(np.float32)
    file = replace(file, query_features=file.query_features + 2 * noise)
    grid = read_sweep("dex.k=2,20; dex.alpha=0,1,3", parse("dex,dba(k=3)"))
    swept = sweep(file, grid, protocol)
    assert swept.mean_ap.shape == (2, 3) and len(np.unique(swept.mean_ap)) > 3
    for row, k in enumerate((2, 20)):
        for column, alpha in enumerate((0, 1, 3)):
            alone = parse(f"dex(k={k},alpha={alpha}),dba(k=3)")
            expected = score_chain(file, alone, protocol).mean_ap
            assert swept.mean_ap[row, column] == pytest.approx(expected, abs=1e-6)
    record = swept.record()
    assert record["chain"] == "dex,dba(k=3)"
    assert record["axes"] == {"dex.k": (2, 20), "dex.alpha": (0, 1, 3)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected one or two axes, got 0"),
        ("dex.k=1;dex.alpha=1;dba.k=1", "expected one or two axes, got 3"),
        ("dex.k", "expected step.option=1,2,3, got 'dex.k'"),
        ("dex.k=", "expected step.option=1,2,3"),
        ("dex.k=1,", "expected numbers in 'dex.k=1,'"),
        ("dex.k=one", "expected numbers in"),
        ("dex.k=1;dex.k=2", "dex.k is named twice"),
        ("diffusion.k=1", "'diffusion' is not a step of 'dex,dba'"),
        ("dex.kk=1", "dex has no option 'kk'; allowed are k, .*; did you mean k"),
        ("dex.k=5,0", "dex: k: expected at least 1, got 0"),
        ("dex.k=0.5", "dex: k: expected a whole number, got 0.5"),
        ("dex.k=1e300", "dex: "),
        ("dex.alpha=nan", "dex: alpha: expected a number"),
        ("dex.within=1", "dex: within: expected one of"),
    ],
)
def test_mistakes_are_named_before_work(text, message):
    with pytest.raises(ValueError, match=f"^sweep: {message}"):
        read_sweep(text, parse("dex,dba"))


def test_a_table_cannot_be_swept():
    with pytest.raises(ValueError, match="sweep: needs a chain for --rerank, got 'ta"):
        read_sweep("dex.k=1", "table6")
