"""Engines: things that run one model. They know tokens, not sessions or variables."""
