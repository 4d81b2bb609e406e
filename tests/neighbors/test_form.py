"""Which form the kernels take, and what the programs of the wide one consist of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import _form, _search, form, nearest_neighbors
from dex_jax.neighbors._form import by_form, is_wide
from dex_jax.neighbors._rows import search_rows
from tests.neighbors.cases import ranked, same, whole

pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.mark.quick
def test_a_cpu_takes_its_own_form_unless_asked_otherwise(monkeypatch):
    monkeypatch.delenv(_form.VARIABLE, raising=False)
    assert jax.default_backend() == "cpu"
    assert not is_wide()
    assert by_form(cpu=1, wide=2) == 1
    with form("wide"):
        assert is_wide()
        assert by_form(cpu=1, wide=2) == 2
        with form("cpu"):
            assert not is_wide()
        assert is_wide()
    assert not is_wide()


def test_a_form_ends_where_its_block_does_after_an_error_too():
    with pytest.raises(KeyError), form("wide"):
        raise KeyError
    assert not is_wide()


@pytest.mark.parametrize("word", ["gpu", "", "WIDE", None, 3])
def test_refuses_another_word(word):
    with pytest.raises(ValueError, match=r"form: expected one of 'cpu', 'wide', got"):
        form(word)


@pytest.mark.quick
def test_the_environment_decides_where_no_block_does(monkeypatch):
    monkeypatch.setenv("DEX_JAX_FORM", "wide")
    assert is_wide()
    # A function that was not traced before takes that form.
    assert jax.jit(lambda x: x + by_form(cpu=1, wide=2))(0) == 2
    with form("cpu"):
        assert not is_wide()
    monkeypatch.setenv("DEX_JAX_FORM", "cpu")
    assert not is_wide()
    monkeypatch.setenv("DEX_JAX_FORM", "tpu")
    with pytest.raises(ValueError, match=r"DEX_JAX_FORM: expected one of .* got 'tpu'"):
        is_wide()
    with form("wide"):  # a block asks for no word of the environment
        assert is_wide()


@pytest.mark.quick
def test_forms_of_one_function_are_traced_apart():
    traced = []

    @jax.jit
    def which(x):
        traced.append(is_wide())
        return x + by_form(cpu=1, wide=2)

    for _ in range(2):
        assert which(0) == 1
        with form("wide"):
            assert which(0) == 2
        with form("cpu"):
            assert which(0) == 1
    # No block and "cpu" are two keys of the cache, though the same program.
    assert sorted(traced) == [False, False, True]


def test_a_form_inside_the_callers_jit_counts_there():
    @jax.jit
    def both(x):
        with form("wide"):
            inner = jax.jit(lambda x: x + by_form(cpu=1, wide=2))(x)
        return inner, x + by_form(cpu=1, wide=2)

    assert [int(x) for x in both(0)] == [2, 1]
    with form("wide"):
        assert [int(x) for x in both(0)] == [2, 2]


def test_both_forms_find_the_same():
    queries, rows = whole(0, 9, 6, width=5), whole(1, 200, 6, width=5)
    queries[:, 0] = rows[:, 0] = 7  # none is zero
    search = functools.partial(nearest_neighbors, queries, rows, k=20)
    plain = search()
    with form("wide"):
        wide = search()
    np.testing.assert_array_equal(wide.ids, plain.ids)
    np.testing.assert_allclose(wide.scores, plain.scores, rtol=0, atol=1e-6)


def _steps(lowered: jax.stages.Lowered) -> tuple[int, int]:
    """How many loops a program has, and how many branches that data decide."""
    text = lowered.as_text()
    return text.count("stablehlo.while"), text.count("stablehlo.case") + text.count(
        "stablehlo.if"
    )


@pytest.mark.parametrize(("held", "loops"), [(301 * 300, 0), (1, 1)])
def test_wide_programs_wait_for_no_data(monkeypatch, held, loops):
    # Either all rows at once, or blocks of 128: then one loop over them, three trips.
    # No loop that ends when data allow it, and no branch: each would be read back.
    some = functools.partial(search_rows, cosines_held=held)
    monkeypatch.setattr(_search, "search_rows", some)
    # Shapes of their own: nothing traced otherwise is reused.
    rows = jax.ShapeDtypeStruct((300, 7 + loops), jnp.float32)
    valid = jax.ShapeDtypeStruct((300,), jnp.bool)
    with form("wide"):
        for mask in (None, valid):
            own = _search.search_itself.lower(rows, mask, k=3, minimum=True)
            assert _steps(own) == (loops, 0)
            found = _search._search.lower(rows, rows, mask, k=3, precision="highest")
            assert _steps(found) == (loops, 0)
    # The check can tell: the form of CPUs has loops and branches.
    cpu = _search.search_itself.lower(rows, None, k=3, minimum=True)
    assert _steps(cpu)[0] > 0
    assert _steps(cpu)[1] > 0


def test_wide_programs_in_blocks_find_the_same(monkeypatch):
    some = functools.partial(search_rows, cosines_held=1)
    monkeypatch.setattr(_search, "search_rows", some)
    rows = jnp.asarray(whole(0, 310, 3))
    with form("wide"):
        found = _search.self_search(rows, k=9)
    same(found, ranked(np.asarray(rows), np.asarray(rows), 9))
