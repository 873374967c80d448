"""What the command line sets for its process before torch is imported."""

import importlib
import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from cli.app import share_cores
if "late" in sys.argv:
    import torch
print(share_cores(), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("arguments", "told", "expected"),
    [
        ([], {}, "True 1000"),
        ([], {"OMP_WAIT_POLICY": "active"}, "False None"),
        ([], {"GOMP_SPINCOUNT": "7"}, "False 7"),
        (["late"], {}, "False None"),
    ],
)
def test_threads_that_wait_sleep_unless_something_else_was_said(arguments, told, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, env={**environment, **told}, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_the_command_line_does_so_first(monkeypatch):
    module = importlib.import_module("cli.app")
    done = []
    monkeypatch.setattr(module, "share_cores", lambda: done.append("shared"))
    monkeypatch.setattr(module, "app", lambda **named: done.append("ran"))
    module.main()
    assert done == ["shared", "ran"]
