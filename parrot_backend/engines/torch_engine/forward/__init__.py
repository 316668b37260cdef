"""The forward pass over one step: attention, kernels of our own, and any model of transformers."""
