"""The model store: which models there are, fetched, converted and kept as folders."""
