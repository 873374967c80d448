"""What can be wrong with a JSON file: each value of another type, a part missing, other bytes."""

import json

WRONG = (None, True, 3, -1.5, "x", [], {}, [["x"]], {"x": {"y": 1}}, 10**400, "\udc80")
"""A value of each type, and some that few readers expect."""


def mutations(data, path=()):
    """Yield (where, JSON value) with each value in turn replaced, dropped, or joined by another."""
    for value in WRONG:
        yield (*path, repr(value)[:12]), value
    if isinstance(data, dict):
        yield (*path, "one more"), {**data, "one more": 1}
        for key, inner in data.items():
            yield (*path, key, "dropped"), {k: v for k, v in data.items() if k != key}
            for where, value in mutations(inner, (*path, key)):
                yield where, {**data, key: value}
    elif isinstance(data, list):
        for place in {0, len(data) - 1} if data else ():
            for where, value in mutations(data[place], (*path, place)):
                yield where, [*data[:place], value, *data[place + 1 :]]


def damages(text):
    """Yield (what, bytes) of a file that is cut short, empty, or no JSON in UTF-8."""
    data = text.encode()
    yield "empty", b""
    yield "not UTF-8", data[:3] + b"\xff\xfe" + data[3:]
    yield "not JSON", b"}" + data
    yield "nested", b"[" * 100_000
    yield "no number", data + b" NaN"
    for part in (1, 3, 7, 9):
        yield f"cut at {part} tenths", data[: len(data) * part // 10]


def bad_files(text):
    """Yield (what, bytes) of every damage of a JSON file."""
    yield from damages(text)
    for where, value in mutations(json.loads(text)):
        yield ": ".join(map(str, where)), json.dumps(value).encode()


def survive(path, read, allowed):
    """Read a file in every state of damage; return what was neither read nor refused.

    Parameters
    ----------
    read : reads the file.
    allowed : the errors that it may raise.
    """
    text = path.read_text(encoding="utf-8")
    found = []
    for what, data in bad_files(text):
        path.write_bytes(data)
        try:
            read()
        except allowed:
            pass
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {error}"[:200])
    path.write_text(text, encoding="utf-8")
    read()
    return found
