"""What the words of a command ask for."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import TABLES, changed_protocol, find_query, report_name
from dex_jax.rerank import parse


def test_a_protocol_changes_only_where_it_is_asked_to():
    own = Protocol("set", remove_same_camera=True, top=100)
    assert changed_protocol(own) is own
    assert changed_protocol(own, top=None, remove_same_camera=True) is own
    changed = changed_protocol(own, remove_same_camera=False, ap_denominator="min")
    assert changed.name == "set, changed by flags"
    assert (changed.remove_same_camera, changed.top) == (False, 100)
    assert changed.ap_denominator == "min"
    with pytest.raises(ValueError, match="top"):
        changed_protocol(own, top=0)


def test_a_query_is_found_by_name_and_by_row():
    file = EmbeddingFile(
        np.eye(3, 4, dtype=np.float32),
        np.eye(4, dtype=np.float32),
        ("a", "2", "c"),
        tuple("wxyz"),
    )
    assert find_query(file, "c") == 2
    assert find_query(file, "0") == 0
    # A name comes before a row of the same digits.
    assert find_query(file, "2") == 1
    for word in ("3", "-1", "z", "", "²"):
        with pytest.raises(ValueError, match="expected a query's name or a row below"):
            find_query(file, word)


def test_tables_and_chains_have_names_of_their_own():
    names = [report_name(table) for table in TABLES]
    assert names == list(TABLES)
    chains = (
        "none",
        "diffusion",
        "dex,dba",
        "dex(k=10),dba",
        "dex(k=1,alpha=0.5),dba",
        "dba,dex(k=1,alpha=0.5)",
        "dex(k=1),dba(k=5)",
    )
    names = [report_name(parse(chain)) for chain in chains]
    assert names[4] == "dex-k=1-alpha=0.5+dba"
    assert names[0] == "none" and len({*names, *TABLES}) == len(chains) + len(TABLES)
    assert report_name(parse(" dex( k = 10 ) , dba")) == "dex-k=10+dba"


def test_a_sweep_has_a_name_of_its_own():
    grids = (None, "dex.k=1,2", "dex.k=1,3", "dex.alpha=1,2", "dex.k=1;dex.alpha=2")
    assert len({report_name(parse("dex"), grid) for grid in grids}) == len(grids)


def test_numbers_and_lengths_that_a_name_cannot_hold_still_tell_apart():
    gammas = ("1e+10", "1e-10", "10", "0.1", "1")
    chains = [parse(f"diffusion(gamma={gamma})") for gamma in gammas]
    assert len({report_name(chain) for chain in chains}) == len(gammas)
    long = ",".join(["dex(k=10,alpha=0.5)"] * 40)
    pair = [report_name(parse(f"{long},{end}")) for end in ("diffusion", "tracklet")]
    assert pair[0] != pair[1] and all(len(name) == 80 for name in pair)


@given(st.none() | st.text(min_size=1, max_size=300))
def test_any_words_give_a_name_that_is_one_folder(grid):
    name = report_name(parse("dex(alpha=0.5)"), grid)
    assert re.fullmatch(r"dex-alpha=0[A-Za-z0-9_.=+-]{0,70}", name)
