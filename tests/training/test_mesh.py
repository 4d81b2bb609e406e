"""Batches on a mesh, and what processes ask one another."""

import numpy as np

from dex_jax import training


def test_a_batch_is_split_in_order_over_the_devices():
    mesh = training.data_mesh()
    images = np.arange(16 * 2 * 2 * 3, dtype=np.uint8).reshape(16, 2, 2, 3)
    labels = np.arange(16, dtype=np.int32)
    placed, numbers = training.place_batch(mesh, images, labels)
    np.testing.assert_array_equal(placed, images)
    np.testing.assert_array_equal(numbers, labels)
    assert numbers.sharding.shard_shape(numbers.shape) == (16 // mesh.devices.size,)
    assert placed.dtype == np.uint8 and numbers.dtype == np.int32


def test_one_process_decides_alone():
    assert training.any_process(True) is True
    assert training.any_process(False) is False
