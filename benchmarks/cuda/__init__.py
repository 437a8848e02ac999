"""Kernels on a GPU against their peers."""
