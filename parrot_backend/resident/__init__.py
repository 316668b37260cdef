"""Backends that a user's processes share: where they are found, what they tell, how they end.

A backend and those who use it meet in three kinds of files, by the `Place` of each. Who lives is known
by locks that the kernel frees, however a process came to its end, and never by process ids alone.
"""
