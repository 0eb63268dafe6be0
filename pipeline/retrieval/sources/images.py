"""The image files of an ingested folder: named by rows, or on their own."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.retrieval.sources.texts import Unreadable

IMAGES = (".png", ".jpg", ".jpeg", ".webp")


class Images:
    """Finds the image files that rows name; any other image file is a source by itself."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._taken = set[Path]()

    def named(self, name: object, folder: Path) -> Path:
        """The image file that a row names, by a path relative to `folder`.

        Raises Unreadable for anything but an image file inside the ingested folder.
        """
        if not isinstance(name, str):
            raise Unreadable("not a text")
        if "://" in name or name.lower().startswith("data:"):
            raise Unreadable("an address; give the path of a file in the folder")
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
            raise Unreadable("an absolute path; give one that starts at this file's folder")
        if not name.lower().endswith(IMAGES):
            raise Unreadable(f"not a file ending in {' '.join(IMAGES)}")
        found = self._inside(folder / name)
        self._taken.add(found)
        return found

    def alone(self, path: Path) -> Path | None:
        """The file of an image that no row or link has brought yet; None if one has.

        Raises Unreadable if it leads out of the ingested folder.
        """
        found = self._inside(path)
        if found in self._taken:
            return None
        self._taken.add(found)
        return found

    def _inside(self, path: Path) -> Path:
        try:
            found = path.resolve()
            there = found.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a link loop, a name too long
            raise Unreadable("not a path of a file") from error
        if not found.is_relative_to(self._root):
            raise Unreadable("leads out of the folder that is ingested")
        if not there:
            raise Unreadable("there is no such file")
        return found
