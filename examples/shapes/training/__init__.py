"""The programs that train the small models."""
