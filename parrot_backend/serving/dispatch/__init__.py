"""Dispatch: which call runs where and when, until it has ended; the order is a policy's."""
