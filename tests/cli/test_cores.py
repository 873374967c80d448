"""What the command line sets for its process before torch is imported."""

import importlib
import os
import sys

import pytest

from cli.app import share_cores


@pytest.mark.parametrize(
    ("is_late", "told", "expected"),
    [
        (False, {}, (True, "1000")),
        (False, {"OMP_WAIT_POLICY": "active"}, (False, None)),
        (False, {"GOMP_SPINCOUNT": "7"}, (False, "7")),
        (True, {}, (False, None)),
    ],
)
def test_threads_that_wait_sleep_unless_something_else_was_said(
    monkeypatch, is_late, told, expected
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, told.get(name, ""))
        if name not in told:
            monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "torch", sys)
    if not is_late:
        monkeypatch.delitem(sys.modules, "torch")
    assert (share_cores(), os.environ.get("GOMP_SPINCOUNT")) == expected


def test_the_command_line_does_so_first(monkeypatch):
    module = importlib.import_module("cli.app")
    done = []
    monkeypatch.setattr(module, "share_cores", lambda: done.append("shared"))
    monkeypatch.setattr(type(module.app), "__call__", lambda app, **named: done.append("ran"))
    module.main()
    assert done == ["shared", "ran"]
