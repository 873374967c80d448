from cli.console import PlainProgress, clean, format_seconds
from cli.output import truncate, wrap


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_plain_progress_prints_a_line_every_five_seconds():
    lines, clock = [], Clock()
    tick = PlainProgress("Indexing", 1000, "documents", lines.append, clock)
    for clock.now in (1.0, 4.9, 5.0, 9.0, 10.0):
        tick(50)
    assert lines == [
        "Indexing: 150 of 1,000 documents, 30.0/s, 28 s left",  # 150 in 5 s; 850 / 30
        "Indexing: 250 of 1,000 documents, 25.0/s, 30 s left",  # 250 in 10 s; 750 / 25
    ]


def test_plain_progress_of_unknown_length_has_no_time_left():
    lines, clock = [], Clock()
    tick = PlainProgress("Indexing", None, "documents", lines.append, clock)
    clock.now = 8.0
    tick(2000)
    assert lines == ["Indexing: 2,000 documents, 250.0/s"]


def test_seconds_turn_into_minutes():
    assert [format_seconds(s) for s in (0.04, 9.94, 75, 720)] == [
        "0.0 s",
        "9.9 s",
        "75 s",
        "12 min",
    ]


def test_clean_keeps_words_and_drops_what_steers_a_terminal():
    assert clean("a\x1b[31mb\x00c\u202ed\ud800e") == "a [31mb c d e"
    assert clean("é 水 👩‍🔬") == "é 水 👩‍🔬"


def test_truncate_and_wrap_count_cells():
    assert truncate("abcdef", 4) == "abc…"
    assert truncate("水水水", 5) == "水水…"
    assert wrap("one two three", 7, 2) == ["one two", "three"]
    assert wrap("one two three four", 7, 2) == ["one two", "three…"]
    assert wrap("abcdefgh", 3, 5) == ["abc", "def", "gh"]
