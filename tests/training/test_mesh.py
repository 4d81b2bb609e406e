"""Batches on a mesh, and what processes ask one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_a_batch_that_devices_cannot_share_is_refused():
    mesh = training.data_mesh(jax.devices()[:3])
    training.check_batch_size(6, mesh)
    with pytest.raises(ValueError, match="8 images cannot be split over 3 devices"):
        training.check_batch_size(8, mesh)


def test_large_leaves_are_split_when_asked():
    mesh = training.data_mesh()
    leaves = {"large": jnp.zeros((3, 16384)), "small": jnp.zeros((8, 8))}
    split = training.state_shardings(leaves, mesh, shard_parameters=True)
    assert split["large"].spec == jax.sharding.PartitionSpec(None, "data")
    assert split["small"].spec == jax.sharding.PartitionSpec(None, None)
    copied = training.state_shardings(leaves, mesh)
    assert copied["large"].is_fully_replicated
