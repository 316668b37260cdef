"""Requests: their bodies, read in pieces, checked, and repeated safely."""
