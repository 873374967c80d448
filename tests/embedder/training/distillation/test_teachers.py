"""Teachers: stored vectors, and what is checked before the first step."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedder import Embedder
from embedder.training import check_data, train
from embedder.training.config import read_config
from embedder.training.distillation.checks import check_lessons
from embedder.training.distillation.teachers import StoredVectors, Teacher, load_teacher
from retrieval.errors import ModelError, SourceNotFoundError, UsageError
from retrieval.texts import text_digest
from retrieval.types import Fingerprint
from tests.embedder.training.distillation.conftest import some_texts

MADE_BY = Fingerprint("fake", {"weights": "1"})


@pytest.fixture
def write_vectors(tmp_path):
    """Write a file as ``millpond embed`` does."""

    def write(texts, vectors, *, name="taught.parquet", role="document", made_by=MADE_BY):
        vectors = np.asarray(vectors, dtype=np.float32)
        kind = pa.list_(pa.float32(), vectors.shape[1])
        table = pa.table(
            {
                "id": [str(i) for i in range(len(texts))],
                "embedding": pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors.ravel()), type=kind
                ),
                "text_hash": pa.array([text_digest(text) for text in texts], pa.binary(16)),
            },
            metadata=None,
        ).replace_schema_metadata(
            {"millpond.fingerprint": json.dumps(made_by.to_json()), "millpond.role": role}
        )
        path = tmp_path / name
        pq.write_table(table, path, row_group_size=2)
        return path

    return write


def units(count, width=4):
    """Vectors of length 1, a direction of its own for each of the first ones."""
    return np.eye(width, dtype=np.float32)[np.arange(count) % width]


def test_a_vector_is_found_by_its_text_whatever_the_order(write_vectors):
    stored = StoredVectors(write_vectors(["a", "b", "c"], units(3)))
    teacher = Teacher(None, stored, "fake")
    found = teacher.embed([(False, "c"), (False, "a")])
    np.testing.assert_array_equal(found, units(3)[[2, 0]])
    assert (len(stored), teacher.width) == (3, 4)


def test_vectors_of_several_files_are_one_teacher(write_vectors, tmp_path):
    write_vectors(["a", "b"], units(2), name="1.parquet")
    write_vectors(["c"], units(3)[2:], name="2.parquet")
    teacher = Teacher(None, StoredVectors(tmp_path), "fake")
    assert teacher.count_missing([(False, text) for text in "abcd"]) == (1, "d")


def test_a_query_takes_the_vector_of_a_document_where_the_teacher_has_no_prompts(write_vectors):
    prompted = Fingerprint("fake", {"query_prompt": "ask: ", "document_prompt": ""})
    for made_by, missing in ((MADE_BY, 0), (prompted, 1)):
        teacher = Teacher(None, StoredVectors(write_vectors(["a"], units(1), made_by=made_by)), "")
        assert teacher.count_missing([(True, "a")])[0] == missing


def test_vectors_are_brought_to_length_one(write_vectors):
    teacher = Teacher(None, StoredVectors(write_vectors(["a"], [[0, 3, 4, 0]])), "fake")
    assert teacher.embed([(False, "a")])[0].tolist() == pytest.approx([0, 0.6, 0.8, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_no_number_is_refused_with_its_row(value, write_vectors):
    vectors = units(5)
    vectors[3, 1] = value
    with pytest.raises(UsageError, match=r"row 4 holds NaN or infinity"):
        StoredVectors(write_vectors(list("abcde"), vectors))


def test_vectors_of_two_models_in_a_folder_are_refused(write_vectors, tmp_path):
    write_vectors(["a"], units(1), name="1.parquet")
    write_vectors(["b"], units(1), name="2.parquet", made_by=Fingerprint("other", {"weights": "2"}))
    with pytest.raises(UsageError, match=r"2\.parquet: made by another model.*weights '1'"):
        StoredVectors(tmp_path)


def test_a_file_that_embed_did_not_write_is_refused(tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"embedding": [[1.0]]}), path)
    with pytest.raises(UsageError, match=r"millpond embed TEXTS"):
        StoredVectors(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(UsageError, match=r"millpond embed TEXTS"):
        StoredVectors(path)
    with pytest.raises(SourceNotFoundError, match=r"there is no such file"):
        StoredVectors(tmp_path / "none.parquet")


@pytest.fixture
def check(lesson_plan, tmp_path, write_vectors, texts_file):
    """Run the checks of a config whose teacher's vectors are given; return what they say."""

    def run(texts, vectors, **changes):
        path = write_vectors(texts, vectors)
        plan = lesson_plan(teacher={"vectors": str(path), "held_out": 0}, **changes)
        config = read_config(plan, tmp_path)
        told = []
        teacher = load_teacher(config.teacher, "cpu", told.append)
        check_lessons(config, teacher, check_data(config), told.append)
        return told

    return run


def test_vectors_of_the_texts_pass_in_silence(check):
    assert check(some_texts(), units(24)) == []


def test_vectors_of_other_texts_are_counted_and_refused(check):
    with pytest.raises(UsageError, match=r"no vector of 22 texts.*first being 'water wheel flour"):
        check(some_texts(2), units(2))


def test_a_text_that_is_held_out_needs_a_vector_too(
    lesson_config, write_vectors, write_texts, tmp_path
):
    texts = some_texts(20)
    path = write_texts(*texts, name="twenty.txt")
    held = {"held_out": 2, "vectors": str(tmp_path / "taught.parquet")}
    config = lesson_config(data=[{"path": str(path)}], teacher=held)
    data = check_data(config)
    write_vectors([text for text in texts if text != data.held_out[0]], units(19))
    with pytest.raises(UsageError, match=r"no vector of 1 text of the data"):
        train(config, tmp_path / "out", device="cpu")


def test_vectors_that_are_not_normalised_are_said(check):
    (line,) = check(some_texts(), 7 * units(24))
    assert "lengths from 7 to 7" in line


def test_a_teacher_with_one_vector_for_all_is_refused(check):
    with pytest.raises(UsageError, match=r"24 texts the same vector"):
        check(some_texts(), np.ones((24, 4)))


def test_texts_alone_are_refused_where_pairs_are_needed(lesson_config, texts_file):
    from retrieval.errors import RecordError

    config = lesson_config(teacher__weights={"cosine": 1.0, "info_nce": 1.0})
    with pytest.raises(RecordError, match=r"query"):
        check_data(config)


def test_triples_without_negatives_are_refused(lesson_config, write_pairs, tmp_path):
    path = write_pairs(*({"query": f"q {i}", "positive": f"p {i}"} for i in range(8)))
    config = lesson_config(data=[{"path": str(path)}], teacher__weights={"margin_mse": 1.0})
    with pytest.raises(UsageError, match=r"no pair has a negative"):
        train(config, tmp_path / "out", device="cpu")


def test_what_the_teacher_never_read_is_counted(lesson_config, write_texts, tmp_path, base_folder):
    long = " ".join(["mill"] * 9)
    path = write_texts(*"abcdefghij", long, name="long.txt")
    base = f"{base_folder['qwen3']}:mean+causal"
    whole = len(Embedder.load(f"{base},max_tokens=500", device="cpu").tokenize([long])[0])
    config = lesson_config(
        data=[{"path": str(path)}],
        teacher__model=f"{base},max_tokens=8",
        steps=1,
    )
    told = []
    train(config, tmp_path / "out", device="cpu", notify=told.append)
    (line,) = (line for line in told if line.startswith("Warning: the teacher reads 8 tokens"))
    assert f"and 1 of 11 texts have more: it never saw {whole - 8:,} of" in line
    assert "set model.max_tokens" in line


def test_texts_that_are_all_longer_than_the_teacher_reads_are_refused(
    lesson_config, write_texts, tmp_path, base_folder
):
    path = write_texts(*(f"{i} " + " ".join(["mill"] * 40) for i in range(6)), name="long.txt")
    teacher = f"{base_folder['qwen3']}:mean+causal,max_tokens=8"
    config = lesson_config(data=[{"path": str(path)}], teacher__model=teacher)
    with pytest.raises(UsageError, match=r"All 6 texts are longer than the 8 tokens"):
        train(config, tmp_path / "out", device="cpu")


def test_prompts_of_the_teacher_are_said(lesson_config, tmp_path, base_folder):
    name = f"{base_folder['qwen3']}:mean+causal,query_prompt=ask"
    told = []
    train(
        lesson_config(teacher__model=name, steps=1),
        tmp_path / "out",
        device="cpu",
        notify=told.append,
    )
    assert any("reads queries after 'ask' and documents after ''" in line for line in told)


def test_empty_texts_are_left_out_and_all_empty_is_refused(lesson_config, write_texts):
    some = write_texts("one", "", "two", "three", "four", name="some.txt")
    data = check_data(lesson_config(data=[{"path": str(some)}]))
    assert data.pairs == 4
    assert data.notes == (f"1 empty text was left out of {some}.",)
    none = write_texts("", " ", name="none.txt")
    with pytest.raises(UsageError, match=r"all 2 texts are empty"):
        check_data(lesson_config(data=[{"path": str(none)}]))


def test_a_teacher_folder_with_pickles_only_is_refused(base_folder, tmp_path, lesson_config):
    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in base_folder["qwen3"].iterdir():
        name = "pytorch_model.bin" if file.suffix == ".safetensors" else file.name
        (folder / name).write_bytes(file.read_bytes())
    for name in (f"st:{folder}", str(folder)):
        with pytest.raises(ModelError, match=r"in pytorch_model\.bin, a pickle, which can"):
            train(lesson_config(teacher__model=name), tmp_path / "out", device="cpu")
    with pytest.raises(ModelError):  # by the loader, which names what it expected
        config = lesson_config(teacher__model=f"{folder}:mean+causal")
        train(config, tmp_path / "out", device="cpu")


def test_vectors_of_another_model_than_the_one_named_are_refused(
    lesson_config, write_vectors, teacher_name
):
    path = write_vectors(["a"], units(1))
    config = lesson_config(teacher={"model": teacher_name, "vectors": str(path)})
    with pytest.raises(UsageError, match=r"are not of teacher.model"):
        load_teacher(config.teacher, "cpu", lambda line: None)


def test_stored_vectors_and_a_model_for_the_rest(
    lesson_config, write_vectors, teacher_encoder, teacher_name
):
    texts = some_texts(4)
    vectors = teacher_encoder.encode_documents(texts)
    path = write_vectors(texts[:2], vectors[:2], made_by=teacher_encoder.fingerprint)
    config = lesson_config(teacher={"model": teacher_name, "vectors": str(path)})
    teacher = load_teacher(config.teacher, "cpu", lambda line: None)
    np.testing.assert_allclose(teacher.embed([(False, text) for text in texts]), vectors, atol=1e-5)
    assert teacher.computed == 2
