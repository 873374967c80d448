from cli.console import PlainProgress, clean, format_seconds, truncate, wrap


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
        "Indexing: 150 of 1,000 documents, 25.0/s, 34 s left",  # 100 since 1 s; 850 / 25
        "Indexing: 250 of 1,000 documents, 22.2/s, 34 s left",  # 200 since 1 s; 750 / 22.2
    ]


def test_plain_progress_of_unknown_length_has_no_time_left():
    lines, clock = [], Clock()
    tick = PlainProgress("Indexing", None, "documents", lines.append, clock)
    for clock.now in (2.0, 8.0):
        tick(1500)
    assert lines == ["Indexing: 3,000 documents, 250.0/s"]  # 1,500 in 6 s


def test_the_loading_of_a_model_before_the_first_item_is_no_rate():
    lines, clock = [], Clock()
    tick = PlainProgress("Searching", 400, "queries", lines.append, clock)
    for clock.now in (12.0, 18.0):
        tick(1 if clock.now == 12.0 else 60)
    assert lines == [
        "Searching: 1 of 400 queries",
        "Searching: 61 of 400 queries, 10.0/s, 34 s left",  # 60 in 6 s; 339 / 10
    ]


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
