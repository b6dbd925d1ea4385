"""Tar files of pictures in the layout of webdataset: ``0001.jpg`` and its class in ``0001.cls``."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scorefield.data.array_sets import state
from scorefield.data.contents import Contents, Part, Records, by_split, checked_size, chosen
from scorefield.data.pictures import ENDINGS
from scorefield.errors import UserError
from scorefield.files import open_file

_DIGITS = 18  # of 64 bits
_MAGIC = (b"ustar\0", b"ustar ")


class Member(NamedTuple):
    """A picture in a tar file: the number of the file, its name, and where its bytes are."""

    shard: int
    name: str
    offset: int
    size: int


class TarRecords(Records):
    """Pictures in tar files, read from where they are."""

    def __init__(self, shards: tuple[Path, ...], members: tuple[Member, ...]) -> None:
        self.shards, self.members = shards, members

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        member = self.members[index]
        return f"{member.name} in {self.shards[member.shard].name}"

    def read(self, index: int) -> bytes:
        member = self.members[index]
        with open_file(self.shards[member.shard]) as file:
            file.seek(member.offset)
            return file.read(checked_size(member.size))


def of_shards(folder: Path, names: Sequence[str]) -> Contents:
    """The pictures of tar files, by the parts that the names of the files begin with.

    Raises:
        UserError: If a file is no tar file, or compressed; or only some pictures have classes.
    """
    used, notes = chosen(by_split(names), "tar files")
    left_out: Counter[str] = Counter()
    parts = {}
    for part, shards in used.items():
        paths = tuple(folder / name for name in shards)
        members: list[Member] = []
        classes: list[int | None] = []
        for number, path in enumerate(paths):
            found, theirs = _listed(path, number, left_out)
            members += found
            classes += theirs
        if not members:
            raise UserError(f"there are no images ({', '.join(ENDINGS)}) in the tar files")
        if None in classes and any(c is not None for c in classes):
            missing = members[classes.index(None)].name
            raise UserError(f"{missing} has no class (.cls), but others have")
        labels = None if None in classes else np.array(classes, np.int64)
        folders = {member.name.rpartition("/")[0] for member in members}
        if labels is None and len(folders) > 1:
            notes.append(
                f"the {len(folders)} folders in the tar files for {part} are no classes: the class "
                "of 1.png is the number in 1.cls"
            )
        parts[part] = Part(TarRecords(paths, tuple(members)), labels)
    paths = tuple(folder / name for some in used.values() for name in some)
    return Contents("tar files of webdataset", parts, None, left_out, tuple(notes), state(paths))


def _listed(
    path: Path, number: int, left_out: Counter[str]
) -> tuple[list[Member], list[int | None]]:
    """The pictures of a tar file in the order in which they are in it, and their classes."""
    pictures: list[tuple[str, Member]] = []
    classes: dict[str, int] = {}
    names: set[str] = set()
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Not left to tarfile, which tries to decompress whatever it is given.
        if file.read(263)[257:263] not in _MAGIC:
            raise UserError(f"{path.name} is no tar file, or a compressed one: unpack it first")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as archive:
                for member in archive:
                    key, ending = _split(member.name)
                    if member.isdir():
                        continue
                    if not member.isreg() or _hidden(member.name):
                        left_out["hidden files, links and devices"] += 1
                    elif member.issparse():
                        raise UserError(f"{member.name} is stored with holes: pack it without -S")
                    elif member.offset_data + member.size > size:
                        raise UserError(f"{path.name} is cut short: {member.name} is not whole")
                    elif ending == ".cls":
                        classes[key] = _class(archive, member)
                    elif ending in ENDINGS:
                        if member.name in names:
                            raise UserError(f"{member.name} is in {path.name} twice")
                        names.add(member.name)
                        entry = Member(number, member.name, member.offset_data, member.size)
                        pictures.append((key, entry))
                    else:
                        left_out[f"files ending in {ending}"] += 1
        except UserError:
            raise
        except Exception as error:
            # Damaged bytes can cause any error of the reader.
            raise UserError(f"{path.name} is damaged, or no tar file") from error
    alone = len(classes.keys() - {key for key, _ in pictures})
    if alone:
        left_out["classes of pictures that are not there"] += alone
    return [member for _, member in pictures], [classes.get(key) for key, _ in pictures]


def _class(archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    stream = archive.extractfile(member)
    text = b"" if stream is None or member.size > 20 else stream.read().strip()
    if not text.isdigit() or len(text) > _DIGITS:
        raise UserError(f"{member.name} is no class, a number from 0")
    return int(text)


def _split(name: str) -> tuple[str, str]:
    """The key of a sample and the ending, from the first full stop of the file's own name."""
    folder, slash, own = name.rpartition("/")
    stem, dot, ending = own.partition(".")
    return folder + slash + stem, (dot + ending).lower()


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part != "." for part in name.split("/"))
