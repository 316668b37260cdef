"""Functions read instead of run: what one gives for symbolic values, from its source."""
