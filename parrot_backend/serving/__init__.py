"""Serving: sessions resolve, render, dispatch and hand over calls; the scheduler feeds the engine."""
