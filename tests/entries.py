"""Sparse entries for tests, at given places of a flattened matrix."""

from sae_sweeps.saes.sparse import RowSparse


def from_flat(flat_N, pre_N, shape):
    """Return the matrix of pre-activations (N,) at the ascending places `flat_N` of the flattened matrix."""
    return RowSparse.from_sorted(flat_N // shape[1], flat_N % shape[1], pre_N, shape)
