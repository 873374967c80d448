"""Folders of files: which are read, and which are passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.corpus.documents.registry import available, find_format, lacking
from retrieval.errors import StorageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

LEFT_OUT = ("node_modules", "__pycache__")
IGNORE_FILE = ".gitignore"


@dataclass(slots=True)
class Listing:
    """What a folder holds, by relative paths with forward slashes, in their order.

    Attributes
    ----------
    files : files that are documents.
    tables : files of records, by ending (``.jsonl``, ``.csv.gz``).
    others : how many other files there are, by ending; "" for names without one.
    lacking : files of formats whose reader is not installed, by ending.
    ignored : how many files and folders a .gitignore lists.
    unfollowed : links to folders, and to files that do not lie in the folder.
    loops : links that lead to themselves.
    """

    files: list[str] = field(default_factory=list)
    tables: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    lacking: dict[str, list[str]] = field(default_factory=dict)
    ignored: int = 0
    unfollowed: int = 0
    loops: list[str] = field(default_factory=list)


def list_folder(folder: Path, tables: Sequence[str]) -> Listing:
    """Return what a folder holds, with the folders in it.

    Names beginning with a dot, ``node_modules``, ``__pycache__`` and what a .gitignore lists are
    left out, and links to folders or to files outside are not followed. ``tables`` are the endings
    of files of records.

    Raises
    ------
    StorageError : a folder cannot be listed.
    """
    listing = Listing()
    _list(folder, "", tuple(tables), _outer_rules(folder.resolve()), listing)
    return listing


Rules = list[tuple[Path, "GitIgnoreSpec"]]
"""The .gitignore files that apply, each with its folder, the nearest one last."""


def _list(root: Path, prefix: str, tables: tuple[str, ...], rules: Rules, found: Listing) -> None:
    here = root / prefix
    try:
        with os.scandir(here) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise StorageError(
            f"{here}: the folder cannot be listed ({error.strerror}). Check that you may read "
            f"it: ls -ld {here}"
        ) from error
    own = [*rules, *_read_rules(here.resolve())]
    # The slash makes folder by folder the same order as sorting the whole paths.
    for name in sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in visible):
        path = here.resolve() / name
        if _is_ignored(path, name.endswith("/"), own):
            found.ignored += 1
        elif name.endswith("/"):
            if name[:-1] not in LEFT_OUT:
                _list(root, prefix + name, tables, own, found)
        else:
            _sort(root, path, prefix + name, tables, found)


def _sort(root: Path, path: Path, name: str, tables: tuple[str, ...], found: Listing) -> None:
    lower = name.lower()
    suffix = find_format(name)
    ending = next((suffix for suffix in tables if lower.endswith(suffix)), "")
    try:
        is_file = path.is_file()
    except OSError:  # Python 3.11 to 3.12 raise for a loop, later ones do not
        is_file = False
    if not is_file:
        if path.is_symlink() and _is_loop(path):
            found.loops.append(name)
        elif path.is_dir():
            found.unfollowed += 1
        else:
            found.others["(broken link)" if path.is_symlink() else "(no file)"] += 1
    elif path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        found.unfollowed += 1
    elif available(suffix):
        found.files.append(name)
    elif lacking(suffix):
        found.lacking.setdefault(suffix, []).append(name)
    elif ending:
        found.tables.setdefault(ending, []).append(name)
    else:
        found.others[path.suffix.lower()] += 1


def _is_loop(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _read_rules(folder: Path) -> Rules:
    """Return the rules of the folder's own .gitignore, if it has one that can be read."""
    from pathspec import GitIgnoreSpec

    try:
        lines = (folder / IGNORE_FILE).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [(folder, GitIgnoreSpec.from_lines(filter(_is_pattern, lines)))]


def _is_pattern(line: str) -> bool:
    """Whether a line of a .gitignore can be read; git passes over the others too."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _outer_rules(folder: Path) -> Rules:
    """Return the rules of the folders above, up to the repository's; none if they list this one."""
    above: list[Path] = []
    if not (folder / ".git").exists():
        for parent in folder.parents:
            above.append(parent)
            if (parent / ".git").exists():
                break
        else:
            return []
    rules = [rule for parent in reversed(above) for rule in _read_rules(parent)]
    return [] if _is_ignored(folder, True, rules) else rules


def _is_ignored(path: Path, is_folder: bool, rules: Rules) -> bool:
    """Whether the last rule that says anything of a path says that it is ignored."""
    for folder, spec in reversed(rules):
        relative = path.relative_to(folder).as_posix() + "/" * is_folder
        verdict = spec.check_file(relative).include
        if verdict is not None:
            return verdict
    return False
