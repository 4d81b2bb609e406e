"""Convolutions in the forms that compilers do well with, gradients included.

XLA's own convolutions are left to accelerators and, where kernels mix channels, to the
forward pass and the gradient of the image. On a CPU one that keeps channels apart is
ten times slower than the sum written here, and the gradient of a kernel that mixes them
takes twice as long on large maps as products of patches.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], tuple[int, int]]
# From an image, a kernel, stride and pads to the convolved image.
Convolution = Callable[[jax.Array, jax.Array, int, Pads], jax.Array]
# From stride, pads, image and kernel, and the gradient of what came out, to theirs.
Gradient = Callable[
    [int, Pads, tuple[jax.Array, jax.Array], jax.Array], tuple[jax.Array, jax.Array]
]

# Maps of fewer pixels than this leave the gradient of a kernel to XLA.
_LARGE_MAP = 300
# Numbers in the patches of some rows of a map, 1 MiB: they should stay in the cache,
# but about as many as the kernel's, which are read and written once for each product.
_PATCHES = 2**18


def explicit_pads(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int | str
) -> Pads:
    """Pixels before and after the rows and columns, from a number or a rule's name."""
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    pads = jax.lax.padtype_to_pads(
        x.shape[1:3], kernel.shape[:2], (stride, stride), padding
    )
    return (pads[0][0], pads[0][1]), (pads[1][0], pads[1][1])


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, *, groups: int
) -> jax.Array:
    """`[B, H, W, C]` by `[h, w, C / groups, C']`, as XLA does it."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _with_gradient(compute: Convolution, backward: Gradient) -> Convolution:
    """A convolution whose gradient is `backward` of its two arrays, which are kept."""

    def forward(
        x: jax.Array, kernel: jax.Array, stride: int, pads: Pads
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return compute(x, kernel, stride, pads), (x, kernel)

    function = jax.custom_vjp(compute, nondiff_argnums=(2, 3))
    function.defvjp(forward, backward)
    return function


def mixing(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """All channels mixed: `[B, H, W, C]` by `[h, w, C, C']`.

    Its gradient goes backward only (no `jax.jvp`). On a CPU the gradient of the kernel
    goes image after image: over a mesh of CPU devices every device does all of it.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 4, 4, 2))
        >>> y = mixing(x, jnp.ones((3, 3, 2, 5)), 2, ((0, 1), (0, 1)))
        >>> y[0, :, :, 0].tolist()
        [[18.0, 12.0], [12.0, 8.0]]
    """
    return _mixed(x, kernel, stride, pads)


def _mix(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    return convolve(x, kernel, stride, pads, groups=1)


def _mix_backward(
    stride: int, pads: Pads, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept

    def by_xla(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: _mix(x, k, stride, pads), kernel)[1](gradient)[0]

    def by_patches(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return _gradient_of_mixing(x, kernel, gradient, stride, pads)

    large = gradient.shape[1] * gradient.shape[2] >= _LARGE_MAP
    of_kernel = jax.lax.platform_dependent(
        x, gradient, cpu=by_patches if large else by_xla, default=by_xla
    )
    of_x = jax.vjp(lambda x: _mix(x, kernel, stride, pads), x)[1](gradient)[0]
    return of_x, of_kernel


_mixed = _with_gradient(_mix, _mix_backward)


def _gradient_of_mixing(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, pads: Pads
) -> jax.Array:
    """The gradient of a kernel `[h, w, C, C']` that mixes channels.

    Patches of some rows of an image at a time, times the gradient there, are summed.
    """
    height, width, inputs, outputs = kernel.shape
    B, H, W = gradient.shape[:3]
    patch = height * width * inputs
    most = max(_PATCHES, kernel.size)  # numbers in the patches of a band
    bands = -(-H // max(1, most // (W * patch)))  # of an image
    rows = -(-H // bands)
    below = bands * rows - H
    # Rows that fill up the last band have no gradient.
    gradient = jnp.pad(gradient, ((0, 0), (0, below), (0, 0), (0, 0)))
    low, high = pads[0]
    x = jnp.pad(x, ((0, 0), (low, high + below * stride), pads[1], (0, 0)))
    seen = (rows - 1) * stride + height
    product = jnp.promote_types(x.dtype, jnp.float32)

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        image, row = number // bands, number % bands * rows
        size = (1, seen, x.shape[2], inputs)
        band = jax.lax.dynamic_slice(x, (image, row * stride, 0, 0), size)[0]
        size = (1, rows, W, outputs)
        part = jax.lax.dynamic_slice(gradient, (image, row, 0, 0), size)
        taps = [
            band[
                i : i + stride * (rows - 1) + 1 : stride,
                j : j + stride * (W - 1) + 1 : stride,
            ]
            for i in range(height)
            for j in range(width)
        ]
        patches = jnp.stack(taps, axis=2).reshape(rows * W, patch)
        # Fused with the product, it would become a slow one.
        patches = jax.lax.optimization_barrier(patches)
        return total + jnp.matmul(
            patches.T, part.reshape(rows * W, outputs), preferred_element_type=product
        )

    total = jax.lax.fori_loop(0, B * bands, add, jnp.zeros((patch, outputs), product))
    return total.reshape(kernel.shape).astype(kernel.dtype)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1 x 1 convolution: `[B, H, W, C]` by `[C, C']`.

    Pixels are put on one axis first. Of a product over three axes XLA writes the
    gradient as one of transposed maps, and transposes them slowly on a CPU.

    Example:
        >>> import jax.numpy as jnp
        >>> pointwise(jnp.ones((1, 2, 2, 3)), jnp.ones((3, 5))).shape
        (1, 2, 2, 5)
    """
    pixels = x.reshape(-1, x.shape[3])  # [B * H * W, C]
    return (pixels @ kernel).reshape(*x.shape[:3], kernel.shape[1])


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Every channel convolved by itself: `[B, H, W, C]` by `[h, w, 1, C]`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 4, 4, 2))
        >>> y = depthwise(x, jnp.ones((3, 3, 1, 2)), 2, ((0, 1), (0, 1)))
        >>> y[0, :, :, 0].tolist()
        [[9.0, 6.0], [6.0, 4.0]]
    """
    return _by_channel(x, kernel, stride, pads)


def _compute(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_shifted, stride=stride, pads=pads),
        default=partial(convolve, stride=stride, pads=pads, groups=x.shape[-1]),
    )


def _backward(
    stride: int, pads: Pads, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def by_xla(
        x: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        run = partial(convolve, stride=stride, pads=pads, groups=x.shape[-1])
        return jax.vjp(run, x, kernel)[1](gradient)

    def by_shifts(
        x: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return (
            _gradient_of_image(x, kernel, gradient, stride, pads),
            _gradient_of_kernel(x, kernel, gradient, stride, pads),
        )

    return jax.lax.platform_dependent(*kept, gradient, cpu=by_shifts, default=by_xla)


_by_channel = _with_gradient(_compute, _backward)


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """A sum of shifted maps, each times one value of the kernel a channel."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = kernel.shape[:2]
    H = (x.shape[1] - rows) // stride + 1
    W = (x.shape[2] - columns) // stride + 1
    total = jnp.zeros((), x.dtype)
    for i in range(rows):
        for j in range(columns):
            ends = (i + stride * (H - 1) + 1, j + stride * (W - 1) + 1)
            tap = x[:, i : ends[0] : stride, j : ends[1] : stride]
            total = total + tap * kernel[i, j].reshape(1, 1, 1, -1)
    return total


def _gradient_of_image(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, pads: Pads
) -> jax.Array:
    """The gradient with zeros between its pixels, convolved by the mirrored kernel."""
    around = [(0, 0, 0)]
    for axis in (1, 2):
        low = kernel.shape[axis - 1] - 1 - pads[axis - 1][0]
        spread = (gradient.shape[axis] - 1) * stride + 1
        high = x.shape[axis] + kernel.shape[axis - 1] - 1 - low - spread
        around.append((low, high, stride - 1))
    spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), [*around, (0, 0, 0)])
    # Fused with what follows, every tap would look for the edges again.
    spread = jax.lax.optimization_barrier(spread)
    return _shifted(spread, jnp.flip(kernel, (0, 1)), 1, ((0, 0), (0, 0)))


def _gradient_of_kernel(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, pads: Pads
) -> jax.Array:
    """One product of the gradient and the shifted image for each value of the kernel.

    Image after image, so that all of them work on maps that are still in the cache.
    """
    rows, columns = kernel.shape[:2]
    H, W = gradient.shape[1:3]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    # Every stride-th pixel in a map of its own: slices without gaps.
    phases = [
        [x[:, a::stride, b::stride] for b in range(stride)] for a in range(stride)
    ]
    phases, gradient = jax.lax.optimization_barrier((phases, gradient))

    def add(
        total: jax.Array, one: tuple[list[list[jax.Array]], jax.Array]
    ) -> tuple[jax.Array, None]:
        maps, gradient = one
        products = [
            jnp.sum(
                maps[i % stride][j % stride][
                    i // stride : i // stride + H, j // stride : j // stride + W
                ]
                * gradient,
                axis=(0, 1),
                dtype=total.dtype,
            )
            for i in range(rows)
            for j in range(columns)
        ]
        return total + jnp.stack(products), None

    wide = jnp.promote_types(x.dtype, jnp.float32)
    start = jnp.zeros((rows * columns, x.shape[3]), wide)
    total, _ = jax.lax.scan(add, start, (phases, gradient))
    return total.reshape(kernel.shape).astype(kernel.dtype)
