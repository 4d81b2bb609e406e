"""Public functions on meshes whose axes have explicit type.

On such axes every gather and sort would have to name the sharding of its result. The
work is therefore done on the same devices with axes of automatic type, and results are
given back on the caller's mesh.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

_P = ParamSpec("_P")
_R = TypeVar("_R")


def on_any_mesh(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Lets a public function work on axes of explicit type, inside `jit` and outside.

    Inside the caller's `jit` results are split like the first argument that is split:
    along the axis that has as many entries. Outside they stay where they were computed.
    """

    @functools.wraps(function)
    def on_mesh(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        arrays = [x for value in (*args, *kwargs.values()) for x in _arrays(value)]
        mesh = _explicit_mesh(arrays)
        if mesh is None:
            return function(*args, **kwargs)
        cast = _Cast()
        call: Callable[..., _R] = function
        with jax.sharding.use_abstract_mesh(_automatic(mesh)):
            result = call(
                *[cast.value(value) for value in args],
                **{name: cast.value(value) for name, value in kwargs.items()},
            )
        return _given_back(result, mesh, arrays)

    return on_mesh


class _Cast:
    """Takes arrays from axes of explicit type to those of automatic type."""

    def __init__(self):
        # The same array twice stays the same array: a set may be searched in itself.
        self._known: dict[int, jax.Array] = {}

    def value(self, value: Any) -> Any:
        """An argument, with its arrays cast."""
        if isinstance(value, jax.Array):
            return self._array(value)
        if not _arrays(value):
            return value
        if isinstance(value, (tuple, list)):
            parts = [self.value(part) for part in value]
            named = hasattr(value, "_fields")  # a NamedTuple takes them one by one
            return type(value)(*parts) if named else type(value)(parts)
        changed = {name: self.value(part) for name, part in vars(value).items()}
        return dataclasses.replace(value, **changed)

    def _array(self, x: jax.Array) -> jax.Array:
        if AxisType.Explicit not in _mesh_of(x).axis_types:
            return x
        if id(x) not in self._known:
            self._known[id(x)] = _to_automatic(x)
        return self._known[id(x)]


def _arrays(value: Any) -> list[jax.Array]:
    """The arrays of jax in an argument, in a sequence of them or in split rows."""
    if isinstance(value, jax.Array):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [x for x in vars(value).values() if isinstance(x, jax.Array)]
    if isinstance(value, (tuple, list)):
        parts = [x for x in value if not isinstance(x, (tuple, list))]
        return [x for part in parts for x in _arrays(part)]
    return []


def _mesh_of(x: jax.Array) -> AbstractMesh:
    return jax.typeof(x).sharding.mesh


def _explicit_mesh(arrays: list[jax.Array]) -> AbstractMesh | None:
    """The mesh with explicit axes on which arrays lie, or that is set; None if none."""
    meshes = [*map(_mesh_of, arrays), jax.sharding.get_abstract_mesh()]
    found = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    return found[0] if found else None


def _automatic(mesh: AbstractMesh) -> AbstractMesh:
    """The same mesh, with automatic axes for explicit ones."""
    types = {
        name: AxisType.Auto if kind == AxisType.Explicit else kind
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    }
    return mesh.update_axis_types(types)


def _to_automatic(x: jax.Array) -> jax.Array:
    if isinstance(x, Tracer) or not isinstance(x.sharding, NamedSharding):
        return jax.sharding.reshard(x, PartitionSpec())
    mesh = x.sharding.mesh
    if not isinstance(mesh, Mesh):
        return jax.sharding.reshard(x, PartitionSpec())
    automatic = Mesh(mesh.devices, mesh.axis_names)
    # What is known inside the caller's jit stays known.
    with jax.ensure_compile_time_eval():
        return jax.device_put(x, NamedSharding(automatic, x.sharding.spec))


def _given_back(result: Any, mesh: AbstractMesh, arrays: list[jax.Array]) -> Any:
    """The result on the mesh that the caller works on."""

    def back(x: Any) -> Any:
        if isinstance(x, Tracer) and isinstance(x, jax.Array):
            with jax.sharding.use_abstract_mesh(mesh):
                return jax.sharding.reshard(x, _spec(x, mesh, arrays))
        if not isinstance(x, jax.Array) or not isinstance(x.sharding, NamedSharding):
            return x
        own = x.sharding.mesh
        if not isinstance(own, Mesh) or own.axis_names != mesh.axis_names:
            return x
        there = Mesh(own.devices, mesh.axis_names, axis_types=mesh.axis_types)
        return jax.device_put(x, NamedSharding(there, x.sharding.spec))

    # The steps of a chain are no trees of arrays and are returned as they are.
    return jax.tree.map(back, result)


def _spec(x: jax.Array, mesh: AbstractMesh, arrays: list[jax.Array]) -> PartitionSpec:
    """How a traced result is split: like the first argument that is split at all."""
    for array in arrays:
        for size, axes in zip(
            array.shape, jax.typeof(array).sharding.spec, strict=True
        ):
            if axes is None or size not in x.shape:
                continue
            # Of scores [Q, G] with Q = G the images are split.
            at = x.ndim - 1 - x.shape[::-1].index(size)
            return PartitionSpec(*[None] * at, axes)
    return PartitionSpec()
