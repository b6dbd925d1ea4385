"""The pictures of a tree of folders: which part each is in, and its class."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from scorefield.data.contents import (
    TEST,
    TRAIN,
    Contents,
    Part,
    chosen,
    kind_of,
    listed,
    numbered,
)
from scorefield.data.pictures import ENDINGS
from scorefield.data.trees import Tree
from scorefield.errors import UserError

_SHOWN = 6
LABELS = "dataset.json"
"""The file in which EDM's tool writes ``{"labels": [["00000/img00000000.png", 6], ...]}``."""


def of_tree(tree: Tree) -> Contents:
    """The pictures of a tree.

    A class is a folder below the part (``train/cats/1.png``, or ``cats/1.png`` where all are in one
    part), or what :data:`LABELS` says. Folders that hold all pictures may be above of these.

    Raises:
        UserError: If there are none, or a file of labels is not as it should be.
    """
    edm = _folder_of_labels(tree)
    if edm is not None:
        return _of_edm(tree, edm)
    names = [name for name in tree.files if name.lower().endswith(ENDINGS)]
    left_out = tree.left_out.copy()
    for name in tree.files.keys() - set(names):
        left_out[kind_of(name)] += 1
    if not names:
        raise UserError(
            f"there are no images ({', '.join(ENDINGS)}) in the {tree.called}; "
            + (listed(left_out) or "it is empty")
        )
    above = _above(_common(names))
    tops: dict[str, list[str]] = {}
    for name in names:
        folder, slash, _ = name[len(above) :].partition("/")
        tops.setdefault(folder.lower() if slash else "", []).append(name)
    notes: list[str] = []
    called = sorted(f for f in tree.folders if f.rpartition("/")[2].lower() in (*TRAIN, *TEST))
    train = next((word for word in TRAIN if word in tops), None)
    if train is None:
        parts = {"train": [("", name) for name in names]}
        if called:
            notes = [
                "no folder train at the top has pictures: those in "
                f"{', '.join(called[:_SHOWN])} are read as all others"
            ]
    else:
        found = {"train": tops[train], **{w: tops[w] for w in TEST if w in tops}}
        used, notes = chosen(found, "pictures")
        read = {name for some in used.values() for name in some}
        others = set(names) - read - {n for w in TEST for n in found.get(w, ())}
        left_out["pictures outside of the folders train and test"] += len(others)
        parts = {
            part: [_halves(name, name.index("/", len(above)) + 1) for name in some]
            for part, some in used.items()
        }
        notes += [
            f"the folder {folder} has no images"
            for folder in called
            if folder.rpartition("/")[0] == above[:-1] and folder[len(above) :].lower() not in tops
        ]
    return _classed(tree, parts, +left_out, notes)


def _classed(
    tree: Tree, parts: dict[str, list[tuple[str, str]]], left_out: Counter[str], notes: list[str]
) -> Contents:
    """The contents of parts, of whose names the second halves tell the classes."""
    below = [name for some in parts.values() for _, name in some]
    common = _common(below)
    shares = {
        part: [(whole + name, name[len(common) :].rpartition("/")[0]) for whole, name in some]
        for part, some in parts.items()
    }
    tops = {folder.partition("/")[0] for some in shares.values() for _, folder in some} - {""}
    bare = {part: sum(not folder for _, folder in some) for part, some in shares.items()}
    classes: tuple[str, ...] | None = None
    labels: dict[str, NDArray[np.int64]] = {}
    if len(tops) > 1 and all(bare[part] < len(some) for part, some in shares.items()):
        left_out["pictures beside the folders of classes"] += sum(bare.values())
        shares = {part: [s for s in some if s[1]] for part, some in shares.items()}
        ordered = {part: sorted(some, key=_by_name) for part, some in shares.items()}
        firsts = {part: [f.partition("/")[0] for _, f in some] for part, some in ordered.items()}
        classes, labels = numbered(firsts)
        wholes = {whole for some in parts.values() for whole, _ in some}
        notes += _empty(tree, wholes, common, classes, [n for s in ordered.values() for n, _ in s])
    else:
        ordered = {part: sorted(some, key=_by_name) for part, some in shares.items()}
        if len(tops) > 1:
            flat = " and ".join(part for part, some in shares.items() if bare[part] == len(some))
            notes.append(f"the classes of the folders are not used: those of {flat} are in none")
        elif tops and any(bare.values()):
            notes.append(
                f"the images have no classes: {sum(bare.values()):,} are in no folder, the others "
                f"in {tops.pop()}"
            )
    made = {
        part: Part(tree.records([name for name, _ in some]), labels.get(part))
        for part, some in ordered.items()
    }
    layout = f"{tree.called} of pictures" + (", a folder for each class" if classes else "")
    return Contents(layout, made, classes, +left_out, tuple(notes), tree.state)


def _of_edm(tree: Tree, above: str) -> Contents:
    """What EDM's tool writes: pictures or arrays in the order of their names, labels in JSON."""
    try:
        stated = json.loads(tree.content(f"{above}{LABELS}"))["labels"]
        labels = None if stated is None else {f"{above}{name}": label for name, label in stated}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{LABELS} is not as the tool of EDM writes it") from error
    names = sorted(n for n in tree.files if n.lower().endswith((*ENDINGS, ".npy")))
    left_out = tree.left_out.copy()
    for name in tree.files.keys() - set(names) - {f"{above}{LABELS}"}:
        left_out[kind_of(name)] += 1
    numbers = None
    if labels is not None:
        missing = next((name for name in names if name not in labels), None)
        if missing is not None:
            raise UserError(f"{LABELS} has no label of {missing}")
        if any(type(labels[name]) is not int or not 0 <= labels[name] < 2**31 for name in names):
            raise UserError(f"{LABELS} has labels that are not integers from 0")
        if len(labels) < len(stated):
            raise UserError(f"{LABELS} has two labels of one picture")
        left_out["labels of pictures that are not there"] += len(labels.keys() - set(names))
        numbers = np.array([labels[name] for name in names], np.int64)
    parts = {"train": Part(tree.records(names), numbers)}
    return Contents(f"{tree.called} of EDM's tool", parts, None, +left_out, (), tree.state)


def _folder_of_labels(tree: Tree) -> str | None:
    """The folder of a file of labels, ending in ``/`` unless it is the root, if it holds all
    images.
    """
    images = [name for name in tree.files if name.lower().endswith((*ENDINGS, ".npy"))]
    shared = _common(images) if images else ""
    ends = [0, *(k + 1 for k, sign in enumerate(shared) if sign == "/")]
    return next((shared[:k] for k in ends if f"{shared[:k]}{LABELS}" in tree.files), None)


def _above(shared: str) -> str:
    """Of the folders that all names begin with, those above one that is called as a part."""
    folders = shared.split("/")[:-1]
    kept = takewhile(lambda folder: folder.lower() not in (*TRAIN, *TEST), folders)
    return "".join(f"{folder}/" for folder in kept)


def _halves(name: str, place: int) -> tuple[str, str]:
    return name[:place], name[place:]


def _common(names: Sequence[str]) -> str:
    """The folders that all names begin with, ending in ``/`` unless there are none."""
    first, last = min(names), max(names)
    equal = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    shared = first[:equal]
    return shared[: shared.rfind("/") + 1]


def _by_name(item: tuple[str, str]) -> tuple[str, list[str]]:
    folder, _, name = item[0].rpartition("/")
    return name, folder.split("/")


def _empty(
    tree: Tree, wholes: set[str], common: str, classes: tuple[str, ...], names: Sequence[str]
) -> list[str]:
    """Sentences about folders in the place of classes that hold no picture."""
    filled = {name[:k] for name in names for k, sign in enumerate(name) if sign == "/"}
    places = {f"{whole}{common}" for whole in wholes}
    found = []
    for folder in sorted(tree.folders - filled):
        above, _, last = folder.rpartition("/")
        if (f"{above}/" if above else "") in places:
            known = "" if last in classes else ", and is no class"
            found.append(f"the folder {folder} has no images{known}")
    return found
