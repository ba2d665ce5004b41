"""Image files of a folder or a tree, in the order that people count in."""

from __future__ import annotations

import os
import stat
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data_prep.problems import Reason, Rejection
from data_prep.read.dicom_parse import dataset_start
from data_prep.read.own import is_own, may_be_own

DICOM = "DICOM"
# A DICOMDIR, which lists images and is none.
DIRECTORY = "directory of DICOM files"
DEAD_LINK = "link to nothing"
LOOKED_AT_BYTES = 352
# Of a folder, files of each folder in it, and folders: DICOM files do not lie behind more of others.
_LOOKED_AT_FILES, _LOOKED_AT_FOLDERS = 50, 500
# Trees that have no end.
_OF_THE_KERNEL = ("/proc/", "/sys/")
# Storage classes of what is no directory.
_STORAGE = b"1.2.840.10008.5.1.4.1.1."
_MAGIC = (
    (0, b"\x89PNG", "PNG picture"),
    (0, b"\xff\xd8\xff", "JPEG picture"),
    (0, b"II*\0", "TIFF picture"),
    (0, b"MM\0*", "TIFF picture"),
    (0, b"NRRD", "NRRD volume"),
    (0, b"ObjectType", "MetaImage volume"),
    (0, b"7z\xbc\xaf", "7z archive"),
    (0, b"Rar!", "RAR archive"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"BZh", "bzip2 archive"),
    (0, b"\xfd7zXZ", "xz archive"),
    (257, b"ustar", "tar archive"),
    (0, b"GIF8", "GIF picture"),
    (4, b"ftyp", "video"),
    (0, b"# === DATA DESCRIPTION FILE", "PAR/REC volume"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 or MINC volume"),
    (0, b"CDF\x01", "MINC volume"),
    (0, b"\x28\xb5\x2f\xfd", "zstandard archive"),
    (0, b"\x04\x22\x4d\x18", "lz4 archive"),
    (0, b"LZIP\x01", "lzip archive"),
    (0, b"\x1f\x9d", "compress archive"),
    (0, b"MSCF\0\0\0\0", "cabinet archive"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"MATLAB 5.0 MAT-file", "MATLAB file"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000 picture"),
)
# Nothing in their first bytes tells these.
_BY_NAME = {
    (".iso", ".dmg", ".nrg", ".vhd", ".vhdx"): "disc image",
    (".gpg", ".pgp", ".p7m", ".p7e", ".age", ".aes", ".enc", ".axx"): "encrypted file",
}
# DICOM as a web service writes it (PS3.18 section F.2, PS3.19 section A.1).
_WRITTEN_OUT = ((b"<NativeDicomModel", "DICOM file as XML"), (b'"00080005"', "DICOM file as JSON"))
_APPLE_DOUBLE = b"\0\5\26\7"
_ANALYZE = (struct.pack("<I", 348), struct.pack(">I", 348))
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r"
_FEWEST_OF_A_SERIES = 5
# An empty file, and one of zeros.
_HOLLOW = ("file of no bytes", "file of zeros")
_IMAGE_SUFFIXES = ("", ".ima", ".img", ".dic", ".dicom", ".mr")
# The length of File Meta, its first element.
_FILE_META = b"\x02\x00\x00\x00UL\x04\x00"
# Tables, web pages and office files may begin like anything; they are nobody's images.
_OFFICE = (".docx", ".xlsx", ".pptx", ".odt", ".ods", ".jar", ".epub")


def is_number(name: str) -> bool:
    """Whether a name is a whole number, as all names of the RSNA layout are."""
    return name.isascii() and name.isdigit()


def natural_order(text: str) -> tuple[bool, int, str]:
    """Key that puts 2 before 10, and numbers before other names."""
    return (not is_number(text), int(text) if is_number(text) else 0, text)


def _sibling_order(entry: os.DirEntry[str]) -> tuple[tuple[bool, int, str], str]:
    name = entry.name
    at = name.rfind(".")  # the stem as pathlib has it
    return natural_order(name[:at] if 0 < at < len(name) - 1 else name), name


def is_hidden(name: str) -> bool:
    """Whether a folder, or what a Mac adds to an archive, is not for its user to see."""
    return name.startswith(".") or name.lower() == "__macosx"


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, but hidden ones, and links to folders, in order; none if it is none."""
    if not folder.is_dir():
        return []
    found = (entry for entry in os.scandir(folder) if _is_folder(entry) and not is_hidden(entry.name))
    return [Path(entry.path) for entry in sorted(found, key=_sibling_order)]


def files_in(folder: Path) -> list[Path]:
    """Everything else directly in a folder, in order. Raises OSError."""
    found = (entry for entry in os.scandir(folder) if not _is_folder(entry))
    return [Path(entry.path) for entry in sorted(found, key=_sibling_order)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def files_below(folder: Path, unreadable: list[Path], hidden: list[Path] | None = None) -> Iterator[Path]:
    """All files of a tree; folders that cannot be listed are added to ``unreadable``.

    Hidden folders are passed over; those that hold DICOM files are added to ``hidden``. Links to folders
    are followed, after everything else, into what was not read yet: whatever the links, every folder is read
    once. What the kernel makes up (``/proc``, ``/sys``), where a tree has no end, counts as unreadable.
    """
    seen: set[str] = set()
    links = [folder]
    while links:
        yield from _files_below(links.pop(0), unreadable, hidden, seen, links)


def _files_below(
    folder: Path, unreadable: list[Path], hidden: list[Path] | None, seen: set[str], links: list[Path]
) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    if f"{real}/".startswith(_OF_THE_KERNEL):
        unreadable.append(folder)
        return
    try:
        files, children = files_in(folder), subfolders(folder)
    except OSError:
        unreadable.append(folder)
        return
    yield from files
    if hidden is not None:
        hidden += _hidden_with_images(folder)
    links += [child for child in children if child.is_symlink()]
    for child in children:
        if not child.is_symlink():
            yield from _files_below(child, unreadable, hidden, seen, links)


def _hidden_with_images(folder: Path) -> list[Path]:
    """Hidden folders directly in a folder that hold DICOM files. Waste baskets are none."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_hidden(entry.name) and _is_folder(entry))
    return [
        folder / name
        for name in names
        if not name.lower().startswith(".trash") and holds_images(folder / name)
    ]


def holds_images(folder: Path, or_else: Callable[[Path], bool] = lambda _: False) -> bool:
    """Whether DICOM files lie below a folder, but for the program's own; a look at some of each folder.

    Args:
        or_else: what counts, too.
    """
    files = (
        Path(place, name)
        for place, _, names in islice(os.walk(folder), _LOOKED_AT_FOLDERS)
        for name in sorted(names)[:_LOOKED_AT_FILES]
    )
    return any((format_of(file) == DICOM or or_else(file)) and not is_own(file) for file in files)


def is_shadow(path: Path) -> bool:
    """Whether a file is what a Mac leaves beside another one on foreign disks (AppleDouble, RFC 1740)."""
    try:
        if not path.name.startswith("._"):
            return False
        with path.open("rb") as file:
            return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    except OSError:
        return False


def image_files(paths: Iterable[Path], others: Others) -> Iterator[Path]:
    """Files that are, or by their name claim to be, DICOM images.

    What the program has written itself is none.

    Args:
        others: told of those that are images or archives of another format, of dead links, and, beside
            images, of files that look as if they had been some.
    """
    spoilt = Spoilt()
    for path in paths:
        is_named = path.suffix.lower() == ".dcm"
        # Of most files the name is enough.
        is_clear = is_named and not path.name.startswith(".") and not may_be_own(path)
        looks = DICOM if is_clear else format_of(path)
        if not is_clear and looks and is_own(path):
            continue
        if path.name.startswith("."):
            if looks == DICOM:
                others.note(path, "hidden DICOM file")
            continue
        if looks == DIRECTORY:
            continue
        if looks == DICOM or is_named:
            spoilt.beside.add(path.parent)
            yield path
        elif looks:
            others.note(path, looks, Reason.LINK if looks == DEAD_LINK else Reason.OTHER_FORMAT)
        elif may_be_image(path.name):
            spoilt.look(path)
    spoilt.tell(others)


def format_of(path: Path) -> str:
    """``DICOM``, ``DIRECTORY``, the name of another format that holds images, ``DEAD_LINK``, or ""."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return ""
        with path.open("rb") as file:
            start = file.read(LOOKED_AT_BYTES)
    except OSError:
        return DEAD_LINK if path.is_symlink() else ""
    return format_of_content(start, path.name, status.st_size)


def format_of_content(start: bytes, name: str, size: int) -> str:
    """As ``format_of``, for the first bytes of a file."""
    if dataset_start(start, size) is not None:
        is_directory = name.lower() == "dicomdir" and _STORAGE not in start
        return DIRECTORY if is_directory else DICOM
    lower = name.lower()
    if start[:2] == b"\x1f\x8b":
        return "" if lower.endswith((".nii.gz", ".nii")) else "gzip archive"
    if lower.endswith(_OFFICE):
        return ""
    if start[:4] in _ANALYZE and start[344:347] != b"n+1":
        return "volume of two files, Analyze or NIfTI"
    if _is_nifti(start) and not lower.endswith(".nii"):
        return "NIfTI volume that is not called .nii"
    known = next((words for at, magic, words in _MAGIC if start[at : at + len(magic)] == magic), "")
    for endings, words in _BY_NAME.items():
        known = known or (words if lower.endswith(endings) and size else "")
    for mark, words in _WRITTEN_OUT:
        known = known or (words if mark in start else "")
    broken = b"DICM" in start or _FILE_META in start
    return known or ("DICOM file with a broken beginning" if broken else "")


def _is_nifti(start: bytes) -> bool:
    """Whether bytes begin a NIfTI-1 or NIfTI-2 file with its voxels."""
    return start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0"


def may_be_image(name: str) -> bool:
    """Whether exporters give such a name to an image: with a number, and no ending of another format."""
    suffix = Path(name).suffix.lower()
    return any(char.isdigit() for char in name) and (suffix in _IMAGE_SUFFIXES or suffix[1:].isdigit())


@dataclass
class Spoilt:
    """Files without DICOM content that have the names of images: an interrupted copy leaves such.

    Attributes:
        beside: folders that hold images.
    """

    beside: set[Path] = field(default_factory=set)
    _binary: Counter[Path] = field(default_factory=Counter)
    _found: list[tuple[Path, str]] = field(default_factory=list)

    def look(self, path: Path) -> None:
        """Look at a file that is no image."""
        try:
            if stat.S_ISREG(path.stat().st_mode):
                with path.open("rb") as file:
                    self.note(path, file.read(LOOKED_AT_BYTES))
        except OSError:
            self.note(path, b"?")

    def note(self, path: Path, start: bytes) -> None:
        """Remember one by its first bytes."""
        self._found.append((path, "file without DICOM content" if any(start) else _HOLLOW[bool(start)]))
        self._binary[path.parent] += b"\0" in start or len(start.translate(None, _TEXT)) > len(start) / 4

    def tell(self, others: Others) -> None:
        """Name hollow ones wherever there are images, and others where they lie beside images.

        So is a folder of them alone, if it is that of a series by their number and no text.
        """
        for path, looks in self._found:
            is_series = self._binary[path.parent] >= _FEWEST_OF_A_SERIES
            if path.parent in self.beside or (self.beside and (looks in _HOLLOW or is_series)):
                others.note(path, looks, Reason.NOT_DICOM)


@dataclass
class Others:
    """Files that may hold images and are not read, by folder, reason and what they look like."""

    found: dict[tuple[Path, Reason, str], list[Path]] = field(default_factory=lambda: defaultdict(list))

    def note(self, path: Path, looks: str, reason: Reason = Reason.OTHER_FORMAT) -> None:
        """Remember one."""
        self.found[path.parent, reason, looks].append(path)

    def count_of(self, reason: Reason) -> int:
        """How many are not read for a reason."""
        return sum(len(paths) for (_, why, _), paths in self.found.items() if why is reason)

    @property
    def rejections(self) -> list[tuple[Path, Rejection]]:
        """One for each folder, reason and look, with the folder."""
        return [
            (folder, _rejection(paths, reason, looks))
            for (folder, reason, looks), paths in sorted(self.found.items())
        ]


def _rejection(paths: list[Path], reason: Reason, looks: str) -> Rejection:
    more = f", and {len(paths) - 1} more here" if len(paths) > 1 else ""
    article = "an" if looks[0] in "aeiou" else "a"
    said = f"{article} {looks}" if reason is Reason.LINK else f"{article} {looks}, which is not read"
    return Rejection.of(paths[0], reason, f"{said}{more}")


def hidden_folder(folder: Path) -> Rejection:
    """Of a folder that ``files_below`` found hidden."""
    return Rejection.of(folder, Reason.MISPLACED, "a hidden folder with DICOM files, which is not read")


def unreadable_folder(folder: Path) -> Rejection:
    """Of a folder that cannot be listed."""
    return Rejection.of(folder, Reason.UNREADABLE, "the folder cannot be read")
