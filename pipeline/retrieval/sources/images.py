"""The images of a folder that is ingested, and which of them are taken."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.retrieval.sources.texts import Unreadable

IMAGES = (".png", ".jpg", ".jpeg", ".webp")


class Images:
    """Finds the image files that rows name, and lets each be taken alone only if none did."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._taken = set[Path]()

    def named(self, name: object, folder: Path) -> Path:
        """The file that a row calls its image, by a path that starts at `folder`.

        Raises Unreadable where that is no image file within the folder that is ingested.
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
        """An image that lies in the folder; none where a row or another name has brought it.

        Raises Unreadable where it leads out of the folder.
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
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
            raise Unreadable("not a path of a file") from error
        if not found.is_relative_to(self._root):
            raise Unreadable("leads out of the folder that is ingested")
        if not there:
            raise Unreadable("there is no such file")
        return found
