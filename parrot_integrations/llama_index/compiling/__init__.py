"""`compile()`: what it makes of the framework's objects, and how their runs are planned."""
