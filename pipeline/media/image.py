"""Image files: pixels, generation parameters, and metadata that marks them as AI-generated."""

import base64
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from pipeline.errors import JobError
from pipeline.job import ImageArray

ImageFormat = Literal["png", "webp", "jpeg"]

LARGEST_PIXELS = 64 * 1024 * 1024
LARGEST_SIDE = 4096
"""Of an image that is rendered, or an input; in pixels."""
SENT_SIDE = 1024
"""Of an image as a server is sent it, in pixels; a larger one is shrunk."""
JPEG_QUALITY = 95

EXTENSIONS: Mapping[str, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}

_READABLE = ("PNG", "JPEG", "WEBP")
# an EXIF block holds 64 kB, of which a character may take four bytes; no job has so many
EXIF_CHARACTERS = 16_000
# TIFF's types of a field
_LONG, _UNDEFINED = 4, 7

# https://www.iptc.org/std/photometadata/specification: images made by a trained model
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmp:CreatorTool="Pressrun"
    Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def data_url(image: ImageArray) -> str:
    """The image as a PNG in a data: URL, no side longer than SENT_SIDE. Raises ValueError as
    `to_image`.
    """
    sent, file = to_image(image), BytesIO()
    sent.thumbnail((SENT_SIDE, SENT_SIDE), Image.Resampling.LANCZOS)
    sent.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def encode(image: ImageArray, fmt: ImageFormat, parameters: str) -> bytes:
    """A file of the image, equal for equal arguments.

    `image` is [height, width, 3] in 0..1; PNG and WebP keep it within half a step of 1/255,
    JPEG at quality 95. `parameters` is the text that A1111 and similar tools read back: a
    `parameters` chunk in PNG, EXIF's UserComment otherwise. Raises ValueError as `to_image`.
    """
    text, options = parameters.replace("\0", ""), dict[str, Any]()
    match fmt:
        case "png":
            chunks = PngImagePlugin.PngInfo()
            if text:
                # tEXt, or iTXt where Latin-1 does not suffice
                chunks.add_text("parameters", text)
            chunks.add_itxt("XML:com.adobe.xmp", _XMP)
            # level 1: 30% faster than the default and hardly larger
            options |= {"pnginfo": chunks, "compress_level": 1}
        case "webp":
            # lossless with the least effort: a fifth of the time of a PNG at about its size
            options |= {"lossless": True, "quality": 0, "method": 0}
        case "jpeg":
            options |= {"quality": JPEG_QUALITY, "subsampling": "4:4:4"}
    if fmt != "png":
        options |= {"exif": _exif(text), "xmp": _XMP.encode()}
    file = BytesIO()
    to_image(image).save(file, format=fmt, **options)
    return file.getvalue()


def decode(data: bytes, longest_side: int | None = None) -> ImageArray:
    """The image in a file as `read_image` reads it, [height, width, 3] in 0..1."""
    return to_array(read_image(data, longest_side))


def to_array(image: Image.Image) -> ImageArray:
    """An 8-bit RGB image as [height, width, 3] in 0..1."""
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def read_image(data: bytes, longest_side: int | None = None) -> Image.Image:
    """The image in a PNG, JPEG or WebP file as a viewer shows it, in 8-bit RGB: rotated by its EXIF
    orientation, over white where it is transparent, 16 bits scaled; shrunk where a side is longer
    than `longest_side`.

    Raises JobError for anything else, for a damaged file and for one with more pixels than
    LARGEST_PIXELS, before decoding it.
    """
    try:
        with Image.open(BytesIO(data), formats=_READABLE) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise JobError(f"the image is too large: {image.width}x{image.height} pixels")
            if longest_side:
                # a JPEG need not be unpacked at its full size
                image.draft(None, (2 * longest_side, 2 * longest_side))
            ImageOps.exif_transpose(image, in_place=True)
            return _over_white(image, longest_side or max(image.size))
    except UnidentifiedImageError:
        raise JobError("the file is not a PNG, JPEG or WebP image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise JobError(f"the image cannot be read: {error}") from error


def luminance(image: ImageArray) -> NDArray[np.float32]:
    """[height, width] in 0..1, weighted as in ITU-R BT.601."""
    return image @ np.array((0.299, 0.587, 0.114), np.float32)


def pixels_in(data: bytes) -> int:
    """The number of pixels that a file of an image says it has; 0 where it is none."""
    try:
        with Image.open(BytesIO(data), formats=_READABLE) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0


def to_image(image: ImageArray) -> Image.Image:
    """The image in 8 bits, rounded. Raises ValueError unless it is finite [height, width, 3]."""
    if image.ndim != 3 or image.shape[2] != 3 or not np.isfinite(image).all():
        raise ValueError(f"not a finite image [height, width, 3]: {image.shape}")
    return Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8), "RGB")


def _over_white(image: Image.Image, longest_side: int) -> Image.Image:
    """An RGB copy, shrunk before it becomes floats of four times the memory."""
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    transparent = image.has_transparency_data
    mode = "RGBA" if transparent else "RGB"
    if image.mode != mode:  # a copy of a large image is hundreds of megabytes
        image = image.convert(mode)
    image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    if not transparent:
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _exif(parameters: str) -> bytes:
    """UserComment as A1111 writes it: big-endian UTF-16 after the code's name (EXIF 2.3, 4.6.5).

    Written by hand, as Pillow gives the tag the type BYTE, which its readers refuse.
    """
    if not parameters:
        return b""
    text = b"UNICODE\0" + parameters[:EXIF_CHARACTERS].encode("utf-16-be")
    first = struct.pack(">HHHIII", 1, ExifTags.IFD.Exif, _LONG, 1, 26, 0)
    second = struct.pack(">HHHIII", 1, ExifTags.Base.UserComment, _UNDEFINED, len(text), 44, 0)
    return b"Exif\0\0MM\0*\0\0\0\x08" + first + second + text
