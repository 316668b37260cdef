"""Programs: Semantic Variables, the calls between them, and what can be known before anything runs."""
