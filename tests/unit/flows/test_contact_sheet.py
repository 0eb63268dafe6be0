"""The picture that Prefect's UI shows of a run."""

from io import BytesIO

import numpy as np
from PIL import Image

from flows.contact_sheet import COLUMNS, LARGEST, PICTURES, SIDE, sheet


def png(width: int, height: int, seed: int) -> bytes:
    """A picture that compresses badly."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def test_the_sheet_stays_small_whatever_is_on_it() -> None:
    jpeg = sheet(png(512, 256, seed) for seed in range(PICTURES))
    assert len(jpeg) <= LARGEST
    with Image.open(BytesIO(jpeg)) as page:
        assert (page.format, page.size) == ("JPEG", (COLUMNS * SIDE, 4 * SIDE))


def test_a_few_pictures_make_a_small_sheet() -> None:
    with Image.open(BytesIO(sheet([png(64, 64, 1), png(64, 64, 2)]))) as page:
        assert page.size == (2 * SIDE, SIDE)
