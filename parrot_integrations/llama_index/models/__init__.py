"""`Parrot`, and what it is made of."""
