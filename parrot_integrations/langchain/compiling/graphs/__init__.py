"""Graphs of LangGraph: they stay what they are, and their nodes are planned when they start."""
