"""Serving: sessions resolve, render, dispatch and hand over calls; the dispatcher feeds the engine."""
