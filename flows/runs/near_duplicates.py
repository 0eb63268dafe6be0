"""Kept images of a run that look like another row's, found by their hashes."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.media.perceptual import DIGITS
from pipeline.records.ids import IdSet
from pipeline.records.manifest import Manifest

BITS, LEVELS = 3, 4
"""Most that the hashes of near-duplicates differ: bits of the forms, and steps of 1/255 in a mean
colour.
"""
WINDOW = 64
"""Images after an image in a table that it is compared with: bounds the work where very many are
nearly alike, of which some may be missed then.
"""
SHOWN = 20

_BANDS = [
    ((1 << width) - 1) << at for at, width in ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
]


def near_duplicates(manifest: Manifest) -> dict[str, Any]:
    """The number of jobs whose image nearly repeats one of an earlier row, and the first of these
    rows; empty where there is none. Equal rows are one job. About 200 bytes of memory for an image.
    """
    seen, rows, hashes = IdSet(), list[int](), bytearray()
    for line in manifest.lines("job_id", "row", "perceptual_hash"):
        if line["perceptual_hash"] and seen.add(line["job_id"]):
            rows.append(line["row"])
            hashes += bytes.fromhex(line["perceptual_hash"])
    table = np.frombuffer(hashes, np.uint8).reshape(-1, DIGITS // 2)
    found = earliest_like(table)
    (repeats,) = (found < len(found)).nonzero()
    if not repeats.size:
        return {}
    said = [f"{rows[at]} of {rows[found[at]]}" for at in repeats[:SHOWN]]
    more = [f"and {repeats.size - SHOWN} more"] if repeats.size > SHOWN else []
    return {"near_duplicates": int(repeats.size), "near_duplicate_rows": ", ".join(said + more)}


def earliest_like(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each of the perceptual hashes [images, bytes] the index of the earliest one before it
    that is nearly equal; their number where there is none.

    Manku, Jain and Das Sarma, "Detecting Near-Duplicates for Web Crawling" (WWW 2007): of five
    bands of the 64 bits two are equal where at most three bits differ, so ten tables, each sorted
    by two bands, bring such hashes together.
    """
    forms = np.ascontiguousarray(hashes[:, :8]).view(np.uint64).ravel()
    colours, count = hashes[:, 8:].astype(np.int16), len(hashes)
    found = np.full(count, count)
    for one, other in combinations(_BANDS, 2):
        keys = forms & np.uint64(one | other)
        # equal hashes are neighbours, and of them the earliest comes first
        order = np.lexsort((np.arange(count), forms, keys))
        keys, at = keys[order], np.arange(count)
        for step in range(1, WINDOW + 1):
            at = at[at + step < count]
            at = at[keys[at] == keys[at + step]]
            if not at.size:
                break
            left, right = order[at], order[at + step]
            near = np.bitwise_count(forms[left] ^ forms[right]) <= BITS
            left, right = left[near], right[near]
            near = np.abs(colours[left] - colours[right]).max(1, initial=0) <= LEVELS
            left, right = left[near], right[near]
            np.minimum.at(found, np.maximum(left, right), np.minimum(left, right))
    return found
