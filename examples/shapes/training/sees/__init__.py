"""Training of the small model that sees."""
