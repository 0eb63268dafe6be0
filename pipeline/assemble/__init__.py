"""The composition root: the only place that picks implementations, with late heavy imports."""
