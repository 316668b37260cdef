"""The framework's own code, run for the plan: on copies, in silence, with answers to come."""
