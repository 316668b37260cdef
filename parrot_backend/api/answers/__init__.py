"""Answers: chunks, choices and lists, made in pieces."""
