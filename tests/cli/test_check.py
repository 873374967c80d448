"""``millpond check``: a whole index, and every way in which one is not whole."""

import json
import shutil
from dataclasses import replace

import pytest

from indexes import Index, read_manifest

VECTORS, DOCUMENTS = "vectors/00000.npy", "documents/00000.arrow"


@pytest.fixture
def server_folder(millpond, corpus, tmp_path, qdrant_place):
    """An index of three documents on the fake server."""
    folder = tmp_path / "remote"
    result = millpond("index", corpus, "--out", folder, *qdrant_place)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def unfinished(millpond, corpus, qdrant_server, qdrant_place):
    """Break a build off after its three documents were embedded, when they are uploaded."""

    def begin(folder, *options):
        qdrant_server.failures.append(["PUT", "/points", 400, 1, {}])
        assert millpond("index", corpus, "--out", folder, *qdrant_place, *options).exit_code == 1
        return folder

    return begin


def facts(result):
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines())


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def assert_error(result, code, *words):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_a_whole_index_is_summed_up(millpond, index_folder):
    result = millpond("check", index_folder)
    assert (result.exit_code, result.stderr) == (0, "")
    shown = facts(result)
    manifest = read_manifest(index_folder)
    assert shown.pop("on").startswith("disk ")
    assert shown == {
        "index": str(index_folder),
        "backend": "faiss, Flat",
        "arms": f"dense, lexical ({manifest.lexical['language']})",
        "documents": "3",
        "dimension": "32",
        "model": "fake",
        "created": f"{manifest.created} by millpond {manifest.millpond}",
        "state": "whole",
    }


def test_json_holds_the_same(millpond, index_folder):
    result = millpond("check", index_folder, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    data = json.loads(result.stdout)
    files = [path for path in index_folder.rglob("*") if path.is_file()]
    # A file system hands out whole blocks, so three files of a few kB take a little more.
    assert data.pop("disk_bytes") >= sum(path.stat().st_blocks for path in files) * 512 > 0
    manifest = read_manifest(index_folder)
    assert data == {
        "index": str(index_folder),
        "whole": True,
        "backend": "faiss",
        "factory": "Flat",
        "arms": ["dense", "lexical"],
        "language": manifest.lexical["language"],
        "documents": 3,
        "dimension": 32,
        "model": "fake",
        "created": manifest.created,
        "millpond": manifest.millpond,
        "files": len(manifest.files),
        "collection": None,
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--factory", "HNSW"), "qdrant, HNSW, in the folder"),
        (("--store", "memory.toml"), "qdrant, Flat, in memory"),
    ],
)
def test_an_index_in_qdrant_is_checked_too(args, words, millpond, corpus, tmp_path, memory_store):
    folder = tmp_path / "index"
    millpond("index", corpus, "--out", folder, "--backend", "qdrant", *args)
    result = millpond("check", folder)
    assert result.exit_code == 0, result.stderr
    assert facts(result)["backend"] == words
    assert facts(result)["state"] == "whole"


@pytest.mark.parametrize("name", ["index.faiss", VECTORS, DOCUMENTS])
@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()])
def test_a_damaged_file_is_named(name, damage, millpond, index_folder):
    damage(index_folder / name)
    result = millpond("check", index_folder)
    assert_error(result, 1, f"{index_folder / name} is damaged: ", "--overwrite")
    assert facts(result)["damaged"].startswith(f"{name}: it")
    assert facts(result)["state"] == "not whole"
    assert facts(result)["model"] == "fake"


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [(".term", flip), (".json", truncate), (".idx", lambda path: path.unlink())],
)
def test_a_damaged_lexical_arm_is_named_and_made_again_by_reindex(
    suffix, damage, millpond, index_folder
):
    before = millpond("search", index_folder, "pond", "--mode", "dense").stdout
    path = sorted((index_folder / "lexical").glob(f"*{suffix}"))[0]
    damage(path)
    result = millpond("check", index_folder)
    assert_error(result, 1, f"{path} is damaged: ", f"reindex {index_folder} --arms dense,lexical")
    assert millpond("search", index_folder, "pond", "--mode", "dense").stdout == before != ""
    result = millpond("reindex", index_folder, "--arms", "dense,lexical")
    assert result.exit_code == 0, result.stderr
    assert millpond("check", index_folder).exit_code == 0
    hybrid = millpond("search", index_folder, "pond", "--mode", "hybrid")
    assert (hybrid.exit_code, "lexical" in hybrid.stderr) == (0, False)


def test_every_damaged_file_is_listed_not_only_the_first(millpond, index_folder):
    flip(index_folder / VECTORS)
    truncate(index_folder / DOCUMENTS)
    result = millpond("check", index_folder, "--json")
    assert_error(result, 1, "is damaged: ", "So is 1 other file.")
    data = json.loads(result.stdout)
    assert data["whole"] is False
    assert sorted(data["damaged"]) == [DOCUMENTS, VECTORS]
    assert f"Error: {data['problem']}\n" == result.stderr


@pytest.mark.parametrize(
    "name", ["*id_tracker.mappings", "*id_tracker.versions", "edge_config.json", "segment.json"]
)
def test_a_flipped_byte_is_found_before_qdrants_engine_reads_it(
    name, millpond, corpus, tmp_path, monkeypatch
):
    folder = tmp_path / "index"
    args = ("--backend", "qdrant", "--factory", "HNSW")
    assert millpond("index", corpus, "--out", folder, *args).exit_code == 0
    path = next(path for path in folder.rglob(name) if path.stat().st_size)
    flip(path)

    def load(path):
        raise AssertionError("the engine may hang, or repair what it should not")

    monkeypatch.setattr("indexes.backends.qdrant.store.EdgeSearcher", load)
    assert_error(millpond("check", folder), 1, f"{path} is damaged: its checksum", "--overwrite")


def test_counts_that_disagree_are_found_though_every_file_is_whole(millpond, index_folder):
    manifest = replace(read_manifest(index_folder), documents=4, rows=4)
    (index_folder / "manifest.json").write_bytes(manifest.encode())
    result = millpond("check", index_folder, "--json")
    assert_error(result, 1, "3 documents", "the manifest states 4")
    assert json.loads(result.stdout)["damaged"] == []


def test_documents_of_another_index_are_found(millpond, write_jsonl, index_folder, tmp_path):
    other = write_jsonl("other.jsonl", *({"_id": name, "text": name} for name in "xyz"))
    millpond("index", other, "--out", tmp_path / "other")
    shutil.copy(tmp_path / "other" / DOCUMENTS, index_folder / DOCUMENTS)
    result = millpond("check", index_folder)
    assert_error(result, 1, f"{index_folder / DOCUMENTS} is damaged")


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": "other"}'])
def test_a_damaged_manifest_is_named(damage, millpond, index_folder):
    (index_folder / "manifest.json").write_text(damage)
    result = millpond("check", index_folder, "--json")
    assert_error(result, 1, "manifest.json is damaged")
    data = json.loads(result.stdout)
    assert (data["whole"], data["index"]) == (False, str(index_folder))


def test_an_index_of_a_newer_millpond_says_what_to_type(millpond, index_folder):
    path = index_folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    result = millpond("check", index_folder)
    assert_error(result, 2, "format 99", "pip install --upgrade millpond")


def test_what_is_no_index_is_said_to_be_none(millpond, tmp_path, corpus):
    assert_error(millpond("check", tmp_path / "nowhere"), 2, "nowhere", "millpond index CORPUS")
    assert_error(millpond("check", tmp_path), 2, "is not an index")
    assert_error(millpond("check", corpus), 2, "is not an index")


def test_an_unfinished_build_says_how_far_it_got_and_what_to_type(
    millpond, unfinished, corpus, tmp_path
):
    folder = unfinished(tmp_path / "my index")
    result = millpond("check", folder)
    assert_error(
        result,
        1,
        "with 3 documents embedded in 1 finished shard.",
        f"millpond index {corpus} --out '{folder}'.",
    )
    assert (folder / ".building" / "done" / "00000.json").is_file()  # still there to go on from
    data = json.loads(millpond("check", folder, "--json").stdout)
    assert (data["whole"], data["damaged"]) == (False, [])


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()])
def test_a_damaged_shard_of_an_unfinished_build_does_not_count(
    damage, millpond, unfinished, tmp_path
):
    folder = unfinished(tmp_path / "index")
    damage(folder / ".building" / VECTORS)
    assert_error(millpond("check", folder), 1, "before any document was saved")


@pytest.mark.parametrize("plan", ["{", "[]", '{"corpus": 7}', None])
def test_an_unfinished_build_with_a_damaged_plan_still_says_so(plan, millpond, tmp_path):
    (tmp_path / "index" / ".building").mkdir(parents=True)
    if plan is not None:
        (tmp_path / "index" / ".building" / "plan.json").write_text(plan)
    result = millpond("check", tmp_path / "index")
    assert_error(result, 1, "before any document was saved", "millpond index CORPUS --out")


def test_an_unfinished_new_version_is_noted_beside_a_whole_index(
    millpond, index_folder, unfinished, corpus
):
    unfinished(index_folder, "--overwrite")
    result = millpond("check", index_folder)
    assert result.exit_code == 0
    assert facts(result)["state"] == "whole"
    assert result.stderr.startswith("Warning: A new version of the index")
    assert "with 3 documents embedded" in result.stderr
    assert f"millpond index {corpus} --out {index_folder} --overwrite" in result.stderr
    assert len(Index.open(index_folder)) == 3


def test_a_collection_is_shown_with_its_count_and_status(millpond, server_folder, qdrant_server):
    [name] = qdrant_server.collections
    qdrant_server.statuses = ["green", "yellow"]  # the first answers the opening of the index
    result = millpond("check", server_folder)
    assert result.exit_code == 0, result.stderr
    shown = facts(result)
    assert shown["backend"] == "qdrant, Flat, on a server"
    assert shown["collection"] == f"{name} at {qdrant_server.url}"
    assert shown["holds"] == "3 points, yellow"
    assert json.loads(millpond("check", server_folder, "--json").stdout)["collection"] == {
        "url": qdrant_server.url,
        "name": name,
        "points": 3,
        "status": "green",
        "problem": "",
        "indexed_vectors": None,
    }


def break_status(server):
    server.statuses = ["green", "red"]


def lose_a_point(server):
    server.loses_points = 1


def drop_collections(server):
    server.collections.clear()


def want_a_key(server):
    server.key = "s3cret"


def change_the_model(server):
    [collection] = server.collections.values()
    fingerprint = collection["body"]["metadata"]["millpond"]["fingerprint"]
    fingerprint["digest"] = "0" * 64


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_status, "is red: it gives no reason"),
        (lose_a_point, "holds 2 points; expected 3"),
        (drop_collections, "is gone"),
        (want_a_key, "wants an API key (401)"),
        (change_the_model, "has damaged metadata"),
    ],
)
def test_a_collection_that_is_not_whole_is_one_line(
    damage, words, millpond, server_folder, qdrant_server
):
    damage(qdrant_server)
    result = millpond("check", server_folder)
    assert_error(result, 1, words)
    assert facts(result)["state"] == "not whole"
    assert "damaged" not in facts(result)  # every file of the folder is as it was written


def test_a_server_that_is_down_is_one_line(millpond, corpus, server_folder, qdrant_server):
    manifest = read_manifest(server_folder)
    manifest = replace(manifest, settings={**manifest.settings, "url": "http://127.0.0.1:1"})
    (server_folder / "manifest.json").write_bytes(manifest.encode())
    result = millpond("check", server_folder)
    assert_error(result, 1, "No Qdrant server answers at http://127.0.0.1:1")


def test_a_lock_that_a_kill_left_is_noted(millpond, index_folder):
    (index_folder / ".lock").touch()
    result = millpond("check", index_folder)
    assert result.exit_code == 0
    assert result.stderr == (
        f"Warning: {index_folder / '.lock'}: a process is writing the index, or was killed. "
        "The next change sweeps it.\n"
    )


@pytest.mark.parametrize(
    ("plan", "what"), [('{"compaction": "2026"}', "A compaction of"), (None, "A change to")]
)
def test_what_a_killed_change_left_beside_a_whole_index_is_noted(
    millpond, index_folder, plan, what
):
    (index_folder / ".building").mkdir()
    if plan:
        (index_folder / ".building" / "plan.json").write_text(plan)
    result = millpond("check", index_folder)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: {what} the index is in progress, or was killed")
    assert "Nothing is lost" in result.stderr


def test_an_unfinished_update_names_the_command_that_goes_on(
    millpond, server_folder, qdrant_server, write_jsonl
):
    more = write_jsonl("more.jsonl", {"_id": "new", "text": "new"})
    qdrant_server.failures.append(["PUT", "/points", 400, 1, {}])
    assert millpond("update", server_folder, more).exit_code == 1
    result = millpond("check", server_folder)
    assert "Warning: What millpond update adds" in result.stderr
    assert f"with the same options: millpond update {server_folder} {more}." in result.stderr
