import json

import pytest

from indexes import FileEntry, Manifest, read_manifest
from retrieval import Fingerprint
from retrieval.errors import IndexCorruptError, SourceNotFoundError, UsageError


def a_manifest(**changes):
    values = {
        "backend": "faiss",
        "factory": "Flat",
        "metric": "cosine",
        "dimension": 4,
        "documents": 3,
        "rows": 3,
        "fingerprint": Fingerprint("m", {"pooling": "mean"}),
        "created": "2025-01-01T00:00:00+00:00",
        "millpond": "0.1.0",
        "libraries": {"numpy": "2"},
        "files": {"index": FileEntry("index.faiss", 45, "0" * 64)},
        "corpus_name": "c.jsonl",
        "skipped": 2,
        "settings": {"nprobe": 8},
    }
    return Manifest(**{**values, **changes})


def test_a_manifest_survives_json():
    manifest = a_manifest()
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


@pytest.mark.parametrize("key", sorted(a_manifest().to_json()))
def test_a_manifest_without_any_one_key_is_corrupt(tmp_path, key):
    data = a_manifest().to_json()
    del data[key]
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(IndexCorruptError, match=r"manifest\.json is damaged.*--overwrite"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("key", sorted(a_manifest().to_json()))
@pytest.mark.parametrize("value", [None, True, [1]])
def test_a_manifest_with_a_value_of_the_wrong_type_is_corrupt(tmp_path, key, value):
    data = a_manifest().to_json() | {key: value}
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(IndexCorruptError, match="is damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_truncated_manifest_is_corrupt(tmp_path, cut):
    (tmp_path / "manifest.json").write_text(json.dumps(a_manifest().to_json())[:cut])
    with pytest.raises(IndexCorruptError, match="--overwrite"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_not_text_is_corrupt(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IndexCorruptError, match="is damaged"):
        read_manifest(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    data = a_manifest().to_json() | {"format_version": 6, "metric": "something new"}
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"format 5.*pip install --upgrade millpond"):
        read_manifest(tmp_path)


def test_an_index_of_before_the_lexical_arm_is_read_as_one_of_one_arm(tmp_path):
    data = a_manifest().to_json() | {"format_version": 4}
    del data["lexical"]
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    manifest = read_manifest(tmp_path)
    assert (manifest.format_version, manifest.arms, manifest.lexical) == (4, ("dense",), {})


def test_an_older_format_is_not_called_damage(tmp_path):
    data = a_manifest().to_json() | {"format_version": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(IndexCorruptError, match=r"an older millpond.* --overwrite") as caught:
        read_manifest(tmp_path)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"metric": "l2"}, {"dimension": 0}, {"documents": 0}, {"skipped": -1}]
)
def test_a_manifest_refuses_impossible_values(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        a_manifest(**changes)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "vectors/../../x"])
def test_a_file_entry_cannot_point_outside_the_folder(name):
    with pytest.raises(ValueError, match="not inside"):
        FileEntry(name, 1, "0")


def test_a_folder_that_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(SourceNotFoundError, match="There is no index"):
        read_manifest(tmp_path / "nowhere")


def test_a_folder_without_a_manifest_is_not_an_index(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"no manifest\.json"):
        read_manifest(tmp_path)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    (tmp_path / "manifest.json").write_bytes(a_manifest().encode())
    assert read_manifest(tmp_path) == a_manifest()


def test_a_manifest_without_a_digest_is_one_of_an_earlier_millpond(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(a_manifest().to_json()))
    assert read_manifest(tmp_path) == a_manifest()


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path):
    whole = a_manifest().encode()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises((IndexCorruptError, UsageError), match="damaged|format"):
            read_manifest(tmp_path)


@pytest.mark.parametrize("added", [b"\n", b" ", b"\x00", b"{}"])
def test_bytes_after_a_manifest_are_found(tmp_path, added):
    (tmp_path / "manifest.json").write_bytes(a_manifest().encode() + added)
    with pytest.raises(IndexCorruptError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"url": ["x"]}}, "settings.url is a list; expected a string"),
        ({"fields": {"year": 5}}, r"fields.year is a whole number \(5\); expected a list"),
        ({"fields": {"year": [5]}}, r"fields.year\[0\] is a whole number"),
        ({"libraries": {"numpy": 2}}, "libraries.numpy is a whole number"),
        ({"passages": {"tokens": "many"}}, "passages.tokens is a string"),
        (
            {"fingerprint": {"model": "m", "settings": {"pooling": {}}}},
            "fingerprint.settings.pooling is a table",
        ),
        ({"files": {"index": {"name": "i", "bytes": -1, "sha256": ""}}}, "'i' has -1 bytes"),
        ({"files": {"index": "index.faiss"}}, "is damaged"),
        ({"extra": 1}, "Unknown key 'extra'"),
    ],
)
def test_a_manifest_with_a_wrong_value_inside_is_one_clear_line(tmp_path, changes, words):
    (tmp_path / "manifest.json").write_text(json.dumps(a_manifest().to_json() | changes))
    with pytest.raises(IndexCorruptError, match=words) as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)
