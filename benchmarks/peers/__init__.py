"""Published algorithms written out plainly, for comparison with the kernels."""
