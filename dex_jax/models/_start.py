"""How a network gets its first values: shapes first, then numpy draws."""

import zlib
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

M = TypeVar("M", bound=nnx.Module)


def initialise(make: Callable[[], M], rngs: nnx.Rngs | int | None) -> M:
    """Makes a module and fills its parameters, compiling nothing.

    Constructors run under `nnx.eval_shape`; every parameter is then drawn by numpy from
    a generator that depends on the seed and on the parameter's path alone. Values are
    therefore the same on every device and whatever else the network holds.

    Args:
        make: constructor of a module whose variables say how they start.
        rngs: a seed, or `nnx.Rngs` whose next `params` key becomes the seed; None
            leaves the module abstract, with `jax.ShapeDtypeStruct` for values.
    """
    abstract = nnx.eval_shape(make)
    if rngs is None:
        return abstract
    seed = _seed(rngs)
    graphdef, state = nnx.split(abstract)
    filled = [
        (path, variable.replace(_draw(path, variable, seed)))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _seed(rngs: nnx.Rngs | int) -> int:
    if isinstance(rngs, nnx.Rngs):
        words = np.asarray(jax.random.key_data(rngs.params()), np.uint64).reshape(-1)
        return int(words[0] << np.uint64(32) | words[-1])
    if isinstance(rngs, bool) or not isinstance(rngs, (int, np.integer)) or rngs < 0:
        raise ValueError(f"rngs: expected nnx.Rngs or a seed >= 0, got {rngs!r}")
    return int(rngs)


def _draw(path: tuple, variable: nnx.Variable, seed: int) -> jax.Array:
    kind, value = variable.get_metadata("start")
    if kind == "constant":
        return jnp.asarray(np.full(variable.shape, value, np.float32))
    name = "/".join(map(str, path))
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = generator.standard_normal(variable.shape, dtype=np.float32)
    return jnp.asarray(noise * np.float32(value))
