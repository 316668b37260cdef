"""The native run, observed: what each step gives is told to the plan, and nobody sees it."""
