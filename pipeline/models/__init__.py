"""Model folders: found, checked and hashed without torch; each loaded once per process."""

from pipeline.models.contents import digest, remarks, verify
from pipeline.models.files import (
    digests_of,
    for_each_role,
    references,
    resolve,
    role_folders,
    variant,
)
from pipeline.models.loading import Models

__all__ = [
    "Models",
    "digest",
    "digests_of",
    "for_each_role",
    "references",
    "remarks",
    "resolve",
    "role_folders",
    "variant",
    "verify",
]
