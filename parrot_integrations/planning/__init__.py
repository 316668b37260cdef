"""Planning: predict the calls of a run as a program of semantic calls. Knows no framework."""
