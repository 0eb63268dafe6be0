"""Held-out quality of the small models."""
