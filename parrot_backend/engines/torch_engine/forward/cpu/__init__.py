"""Kernels that numba compiles for the processor at hand: products, attention, a Llama's layers."""
