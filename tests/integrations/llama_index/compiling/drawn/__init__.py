"""Cases that are drawn at random, by kind: what is built, and what it is asked."""
