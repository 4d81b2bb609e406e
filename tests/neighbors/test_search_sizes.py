"""Searches of more than one tile through the public door, compiled as users do."""

import jax
import numpy as np
import pytest

from dex_jax.neighbors import form, nearest_neighbors
from tests.neighbors.cases import check_lists, ranked, same, twins
from tests.rerank.cases import signs

both_forms = pytest.mark.parametrize("name", ["cpu", "wide"])


def _check_some(found, queries, database, step):
    """`check_lists` of every so many queries."""
    some = jax.tree.map(lambda x: np.asarray(x)[::step], found)
    check_lists(some, queries[::step], database)


@both_forms
@pytest.mark.parametrize("rows", [3500, 4600])
def test_equal_rows_at_sizes_that_take_several_blocks(rows, name):
    # Compiled as users do, of whom each gets other blocks by their number of rows.
    database = twins(rows, rows, rows // 2)
    queries = database[:2100]
    with form(name):
        if rows == 3500 or name == "wide":
            own = nearest_neighbors(database, database, k=10)
            _check_some(own, database, database, 17)
        if rows == 4600 or name == "wide":
            found = nearest_neighbors(queries, database, k=10)
            _check_some(found, queries, database, 17)


@both_forms
def test_more_cosines_than_one_tile(name):
    # Blocks divide neither side, and there are 16 different rows: mostly ties.
    queries, database = signs(4201, seed=1), signs(2101)
    with form(name):
        found = nearest_neighbors(queries, database, k=40)
    same(found, ranked(queries, database, 40))
