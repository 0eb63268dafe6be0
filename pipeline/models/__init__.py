"""Model folders: found, checked and hashed without torch; each loaded once per process."""

from pipeline.models.files import digest, resolve, role_folders, verify
from pipeline.models.loading import Models

__all__ = ["Models", "digest", "resolve", "role_folders", "verify"]
