"""``millpond search DIR`` at a pseudo-terminal, as somebody types there."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pty = pytest.importorskip("pty", reason="a system without pseudo-terminals")
pytest.importorskip("readline", reason="a Python without readline")

PROMPT = "\nsearch> "
START = """
import sys
import embedder.loading
import embedder.light
from tests.cli.conftest import WordEncoder

def load(model, *rest, **options):
    print("LOADED", model)
    return WordEncoder(model or "fake")

embedder.loading.load_encoder = load
embedder.light.load_light_encoder = lambda model, *, is_int8: None
from cli.app import main
main()
"""


class Terminal:
    """A command at a terminal of 80 columns; ``type`` returns what it shows until it asks again."""

    def __init__(self, arguments, home):
        self._master, slave = pty.openpty()
        environment = os.environ | {
            "TERM": "xterm",
            "COLUMNS": "80",
            "XDG_CACHE_HOME": str(home),
            "PYTHONPATH": str(ROOT),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)

    def type(self, keys, until=PROMPT):
        os.write(self._master, keys.encode())
        return self.read(until)

    def interrupt(self, keys):
        """Type, and press Ctrl-C until it is heard: a busy process may not be reading yet."""
        os.write(self._master, keys.encode())
        return self.read(again=b"\x03")

    def read(self, until=PROMPT, again=b""):
        shown, deadline = "", time.monotonic() + 100
        while until is None or not shown.endswith(until):
            ready, _, _ = select.select([self._master], [], [], 1)
            if not ready:
                os.write(self._master, again)
            if ready:
                try:
                    part = os.read(self._master, 4096)
                except OSError:  # Linux: the other end is closed
                    part = b""
                if not part:
                    break
                shown = plain(shown + part.decode())
            assert time.monotonic() < deadline, shown
        return shown

    def wait(self):
        return self._process.wait(60)

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def take_terminal():
    """Make the pseudo-terminal the one whose Ctrl-C reaches this process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A test run that was started in the background may ignore Ctrl-C, and hand that down.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)


@pytest.fixture
def terminal(index_folder, tmp_path):
    opened = []

    def open_one(*arguments):
        opened.append(Terminal(["search", index_folder, *arguments], tmp_path / "home"))
        opened[-1].read()
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def ids(shown):
    return re.findall(r"^ ?\d+  -?\d\.\d{4}  (\w+)", shown, re.MULTILINE)


def test_a_prompt_answers_text_after_text_with_one_model(terminal, index_folder, tmp_path):
    first = Terminal(["search", index_folder], tmp_path / "home")
    opening = first.read()
    assert opening.count("LOADED") == 1
    assert ":help lists more, Ctrl-D ends" in opening
    shown = first.type("mills grind corn\n")
    assert ids(shown)[0] == "b"
    assert "lexical" in shown and "(rank 1): mills, grind, corn" in shown
    again = first.type("still water\n")
    assert ids(again)[0] == "c"
    assert "LOADED" not in shown + again
    last = first.type("\x04", until=None)
    assert first.wait() == 0, last
    first.close()


def test_commands_change_the_searches_that_follow(terminal):
    one = terminal()
    assert len(ids(one.type("water\n"))) == 3
    one.type(":k 1\n")
    assert len(ids(one.type("water\n"))) == 1
    one.type(":k 10\n")
    one.type(":filter year == 1851\n")
    assert ids(one.type("water\n")) == ["b"]
    one.type(":filter\n")
    one.type(":mode lexical\n")
    assert sorted(ids(one.type("water\n"))) == ["a", "c"]
    assert "mode lexical" in one.type(":help\n")


ERRORS = {
    ":k none": "whole number",
    ":k 0": "whole number",
    ":mode sparse": "Unknown mode 'sparse'",
    ":weight 2": "between 0",
    ":fusion sum": "Unknown fusion 'sum'",
    ":filter year >=": "Error: ",
    ":filter nothing == 1": "nothing",
    ":wrong": "Unknown command ':wrong'",
}


def test_an_error_is_said_and_neither_ends_nor_changes_anything(terminal):
    one = terminal()
    one.type(":k 1\n")
    said = {line: one.type(f"{line}\n") for line in ERRORS}
    assert {line: says for line, says in ERRORS.items() if says not in said[line]} == {}
    assert len(ids(one.type("water\n"))) == 1


def test_ctrl_c_clears_the_line_and_ctrl_d_ends(terminal):
    one = terminal()
    shown = one.interrupt("half a question")
    assert ids(shown) == []
    assert ids(one.type("mills\n"))[0] == "b"
    one.type("\x04", until=None)
    assert one.wait() == 0


def test_the_arrow_brings_back_what_was_typed_also_in_the_next_prompt(terminal, tmp_path):
    one = terminal()
    one.type("mills grind\n")
    assert "mills grind" in one.type("\x1b[A\n")
    one.type(":quit\n", until=None)
    assert one.wait() == 0
    history = tmp_path / "home" / "millpond" / "search-history"
    assert history.stat().st_mode & 0o077 == 0
    assert ids(terminal().type("\x1b[A\x1b[A\n"))[0] == "b"


def test_the_lexical_mode_loads_no_model_before_another_is_asked_for(terminal):
    one = terminal("--mode", "lexical")
    assert "LOADED" not in one.type("water\n")
    assert "LOADED" in one.type(":mode dense\n") + one.type("water\n")
