"""Ids of files: the name of the folder that was named, and the path inside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.typed import plain_data, read_stored

NO_FOLDERS = "[]"
"""What ``Roots.to_json`` writes of none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A folder whose files are to be read.

    Attributes
    ----------
    path : as it was typed; of a file that was named by itself, its folder.
    deep : whether the folders in it belong to it too.
    """

    path: Path
    deep: bool

    @property
    def real(self) -> Path:
        """The path without links and without regard to the working directory."""
        return self.path.resolve()


@dataclass(frozen=True, slots=True)
class Root:
    """A folder whose files have ids that begin with ``label``; see ``Wanted`` for the rest."""

    label: str
    path: Path
    deep: bool

    def holds(self, file: Path) -> bool:
        """Whether a file is one of its files."""
        return file.is_relative_to(self.path) if self.deep else file.parent == self.path

    def covers(self, wanted: Wanted) -> bool:
        """Whether all files of another folder have their ids from this one."""
        if self.deep:
            return wanted.real.is_relative_to(self.path)
        return self.path == wanted.real and not wanted.deep


class Roots:
    """The folders that were ever named for an index, in that order; the first decides an id.

    The label of a folder is its own name. Only where that is taken by another folder which still
    exists, the names of the folders above come before it. A folder that is not where it was, with
    one of its name in another place, has moved and keeps its label.
    """

    def __init__(self, known: Sequence[Root] = ()) -> None:
        self._roots = list(known)

    def add(self, folders: Iterable[Wanted], note: Callable[[str], None]) -> None:
        """Give labels to folders that have none yet; the order of the folders does not matter."""
        new: list[Wanted] = []
        for wanted in sorted(folders, key=lambda one: (len(one.real.parts), not one.deep)):
            outer = [Root("", one.real, one.deep) for one in new]
            if not any(root.covers(wanted) for root in (*self._roots, *outer)):
                new.append(wanted)
        fresh = [wanted for wanted in new if not self._keep_label(wanted, note)]
        for wanted, label in _choose_labels(fresh, [root.label for root in self._roots]).items():
            if label != _label(wanted, 1):
                note(
                    f"{wanted.path}: ids begin with {label}, since another folder is called "
                    f"{_label(wanted, 1)}."
                )
            self._roots.append(Root(label, wanted.real, wanted.deep))

    def _keep_label(self, wanted: Wanted, note: Callable[[str], None]) -> bool:
        """Give a folder the label that it has, or had where it was; return whether it had one."""
        for place, root in enumerate(self._roots):
            if root.path == wanted.real:
                self._roots.append(Root(root.label, wanted.real, wanted.deep))
                return True
            if root.label == _label(wanted, 1) and not root.path.exists():
                note(
                    f"{wanted.path}: taken for the folder that was {root.path}; its files keep "
                    "their ids."
                )
                deep = root.deep or wanted.deep
                self._roots[place] = replace(root, path=wanted.real, deep=deep)
                return True
        return False

    def doc_id(self, file: Path) -> str:
        """Return the id of a file of one of the folders.

        Its path holds no links, except that the file may be one.
        """
        root = next(root for root in self._roots if root.holds(file))
        parts = file.relative_to(root.path).as_posix()
        return f"{root.label.rstrip('/')}/{parts}"

    def __iter__(self) -> Iterator[Root]:
        return iter(self._roots)

    def to_json(self) -> str:
        """Return what ``from_json`` reads."""
        return json.dumps(plain_data(self._roots))

    @classmethod
    def from_json(cls, text: str) -> Roots:
        """Return the roots that ``to_json`` wrote.

        Raises
        ------
        ValueError : it is no such text.
        """
        listed = json.loads(text)
        if not isinstance(listed, list):
            raise ValueError(f"the folders of an index are no list: {text[:80]}")
        return cls([read_stored(Root, one) for one in listed])


def _choose_labels(folders: Sequence[Wanted], taken: Sequence[str]) -> dict[Wanted, str]:
    """Return a label for each folder, as short as it can be and different from all others."""
    sizes = dict.fromkeys(folders, 1)
    while True:
        labels = {wanted: _label(wanted, size) for wanted, size in sizes.items()}
        all_labels = [*taken, *labels.values()]
        alike = [one for one in folders if sum(_meet(labels[one], two) for two in all_labels) > 1]
        if not alike:
            return labels
        for wanted in alike:
            sizes[wanted] += 1


def _label(wanted: Wanted, size: int) -> str:
    """Return the name of a folder, with those of the folders above if ``size`` is more than 1."""
    typed = Path(os.path.abspath(wanted.path))  # noqa: PTH100, which would follow a link
    if size >= len(typed.parts):
        return typed.as_posix()
    return "/".join(typed.parts[-size:])


def _meet(one: str, two: str) -> bool:
    """Whether ids that begin with one label could be those of the other."""
    shorter, longer = sorted((one, two), key=len)
    return longer == shorter or longer.startswith(shorter + "/")
