"""Sessions: what one application plans and asks for, from a program's submission to its last answer."""
