"""Every public function of arrays, called in every way that users call it.

One case for each public function of `neighbors`, `rerank`, `metrics` and `losses`. Its
result on float32 arrays, eager, on one device, is what every other way has to give;
that this is right is tested beside each function.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

from dex_jax import losses, neighbors, rerank
from tests.conftest import let_go_of_programs
from tests.every_call import CASES, DEVICES, SPLIT, TYPES, Arrays, Case, D, G, Q

pytestmark = pytest.mark.usefixtures("quick_programs")


def test_every_public_function_has_a_case():
    public = {*neighbors.__all__, *rerank.__all__, *losses.__all__, "evaluate"}
    assert public - TYPES == {re.split("[ ,]", name)[0] for name in CASES}


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Small whole numbers: float16, bfloat16 and integers hold them exactly."""
    rng = np.random.default_rng(0)

    def ints(most: int, size: int) -> np.ndarray:
        return rng.integers(0, most, size).astype(np.int32)

    return Arrays(
        query=rng.integers(-60, 61, (Q, D)).astype(np.float32),
        gallery=rng.integers(-60, 61, (G, D)).astype(np.float32),
        tracklets=ints(9, G),
        query_cameras=ints(3, Q),
        gallery_cameras=ints(3, G),
        query_identities=np.array([0, 1, 2, 0, 1, 2, 0], np.int32),
        gallery_identities=ints(4, G),
        scores=rng.integers(-100, 101, (Q, G)).astype(np.float32) / 128,
        option=np.float32(0.25),
    )


@pytest.fixture(scope="module")
def expected(arrays) -> dict[str, Any]:
    """Results of the plain call, computed on demand."""
    del arrays
    return {}


def _plain(name: str, arrays: Arrays, expected: dict[str, Any]) -> Any:
    if name not in expected:
        with neighbors.form("cpu"):
            expected[name] = jax.tree.map(np.asarray, CASES[name].call(arrays))
    return expected[name]


def _check(found: Any, wanted: Any, *, double: bool = False):
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == (np.float64 if double else other.dtype)
        assert one.shape == other.shape
        if other.dtype == np.float32:
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=5e-6)
        else:
            np.testing.assert_array_equal(one, other)


def _jitted(case: Case, arrays: Arrays) -> Any:
    if not case.known:
        return jax.jit(case.call)(arrays)
    rest = arrays._replace(tracklets=None)
    known = np.asarray(arrays.tracklets)
    return jax.jit(lambda a: case.call(a._replace(tracklets=known)))(rest)


def _on_mesh(arrays: Arrays, kind: AxisType) -> Arrays:
    mesh = jax.make_mesh((DEVICES,), ("gallery",), axis_types=(kind,))
    placed = [
        jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip(arrays, SPLIT, strict=True)
    ]
    return Arrays(*placed)


def _cast(arrays: Arrays, dtype: Any) -> Arrays:
    """Embeddings of another type of numbers."""
    return arrays._replace(
        query=jnp.asarray(arrays.query).astype(dtype),
        gallery=jnp.asarray(arrays.gallery).astype(dtype),
    )


def _as_double(arrays: Arrays) -> Arrays:
    double = arrays._replace(option=float(arrays.option))
    for name in ("query", "gallery", "scores"):
        double = double._replace(**{name: getattr(arrays, name).astype(np.float64)})
    return double


def _as_lists(arrays: Arrays) -> Arrays:
    return Arrays(*[np.asarray(array).tolist() for array in arrays])


def _same(arrays: Arrays) -> Arrays:
    return arrays


def _eager(case: Case, arrays: Arrays) -> Any:
    return case.call(arrays)


def _wide(case: Case, arrays: Arrays) -> Any:
    with neighbors.form("wide"):
        return case.call(arrays)


class Way(NamedTuple):
    """A way to call: what becomes of the arrays, how to call, and in what context."""

    arrays: Callable[[Arrays], Arrays]
    call: Callable[[Case, Arrays], Any]
    context: Callable[[], AbstractContextManager] = nullcontext


def _double() -> AbstractContextManager:
    return jax.enable_x64(True)


WAYS = {
    "jit": Way(_same, _jitted),
    "wide": Way(_same, _wide),
    "lists": Way(_as_lists, _eager),
    "float64": Way(_as_double, _eager),
    "x64": Way(_same, _eager, _double),
    "x64, wide": Way(_same, _wide, _double),
    "x64, float64, jit": Way(_as_double, _jitted, _double),
    "float16": Way(lambda a: _cast(a, jnp.float16), _eager),
    "bfloat16": Way(lambda a: _cast(a, jnp.bfloat16), _eager),
    "int8": Way(lambda a: _cast(a, jnp.int8), _eager),
    "devices": Way(lambda a: _on_mesh(a, AxisType.Auto), _eager),
    "devices, jit": Way(lambda a: _on_mesh(a, AxisType.Auto), _jitted),
    "explicit": Way(lambda a: _on_mesh(a, AxisType.Explicit), _eager),
    "explicit, jit": Way(lambda a: _on_mesh(a, AxisType.Explicit), _jitted),
    "disable_jit": Way(_same, _eager, jax.disable_jit),
    "debug_nans": Way(_same, _eager, lambda: jax.debug_nans(True)),
}


# Without jit every operation is a program: minutes for what is made of other cases.
LONG = {"tracklet_k_reciprocal", "parse, the best"}
CALLS = [
    (way, name)
    for way in WAYS
    for name in CASES
    if not (way == "disable_jit" and name in LONG)
]


@pytest.fixture(autouse=True)
def few_programs():
    """This module alone compiles more programs than a process may hold."""
    yield
    let_go_of_programs(40_000)


@pytest.mark.parametrize(("way", "name"), CALLS)
def test_a_call_gives_the_same_in_every_way(name, way, arrays, expected):
    wanted = _plain(name, arrays, expected)
    changed, call, context = WAYS[way]
    with context():
        found = call(CASES[name], changed(arrays))
        # Losses compute in float64 where they are given it.
        double = way.startswith("x64, float64") and name in losses.__all__
        _check(found, wanted, double=double)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].vmapped])
def test_options_may_be_mapped_over(name, arrays, expected):
    def call(option: jax.Array) -> Any:
        return CASES[name].call(arrays._replace(option=option))

    options = jnp.array([0.75, 0.25], jnp.float32)
    wanted = _plain(name, arrays, expected)
    _check(jax.tree.map(lambda x: x[1], jax.vmap(call)(options)), wanted)


@pytest.mark.parametrize("name", CASES)
def test_tensors_are_read(name, arrays, expected):
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(np.array(x)) for x in arrays]
    changed = Arrays(*tensors)._replace(
        # Part of a computation, and of a type that numpy does not have.
        query=tensors[0].requires_grad_(True),
        gallery=tensors[1].to(torch.bfloat16),
        option=float(arrays.option),
    )
    _check(CASES[name].call(changed), _plain(name, arrays, expected))


@pytest.mark.parametrize("name", ["nearest_neighbors", "parse, the best", "evaluate"])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_may_be_set(name, kind, arrays, expected):
    wanted = _plain(name, arrays, expected)
    placed = _on_mesh(arrays, kind)
    mesh = placed.gallery.sharding.mesh
    with jax.set_mesh(mesh):
        found = CASES[name].call(placed)
        again = _jitted(CASES[name], placed)
        # Results join the caller's computation on the caller's mesh.
        total = jax.tree.leaves(found)[0] + jax.tree.leaves(again)[0]
    assert total.sharding.mesh == mesh
    _check(found, wanted)
    _check(again, wanted)
