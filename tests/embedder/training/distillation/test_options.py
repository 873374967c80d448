"""What a [teacher] table may say, and what comes of the vectors that it leads to."""

import numpy as np
import pytest

from embedder.training.distillation.projection import fit_projection
from embedder.training.distillation.run import describe_stall, measure_agreement
from retrieval.errors import UsageError


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "names no teacher"),
        ({"model": "st:x", "weights": {"info_nce": 1.0}}, "no loss of the teacher any weight"),
        ({"model": "st:x", "weights": {"cosine": -1.0}}, r"weights\.cosine is -1"),
        ({"model": "st:x", "weights": {"cosine": "much"}}, r"weights\.cosine"),
        ({"model": "st:x", "temperature": 0.0}, "temperature is 0"),
        ({"model": "st:x", "held_out": -1}, "held_out is -1"),
        (
            {"model": "st:x", "weights": {"similarity": 1.0}, "keep_projection": True},
            "no loss trains a projection",
        ),
    ],
)
def test_a_table_that_cannot_teach_is_refused(table, words, config):
    with pytest.raises(UsageError, match=words):
        config(teacher=table)


def test_an_unknown_loss_is_refused(config):
    with pytest.raises(UsageError, match=r"'cosin'. Did you mean 'cosine'"):
        config(teacher={"model": "st:x", "weights": {"cosin": 1.0}})


def test_matryoshka_without_info_nce_is_refused(config):
    with pytest.raises(UsageError, match=r"only InfoNCE uses it"):
        config(teacher={"model": "st:x"}, loss={"matryoshka_dimensions": [8]})


def test_a_kept_projection_and_a_cut_vector_are_refused(config):
    teacher = {"model": "st:x", "keep_projection": True}
    with pytest.raises(UsageError, match=r"keep_projection is true"):
        config(teacher=teacher, model__dimension=8)


def test_a_path_of_a_teacher_is_relative_to_the_config(config, tmp_path):
    teacher = config(teacher={"model": "st:./teacher", "vectors": "v.parquet"}).teacher
    assert teacher.model == f"st:{tmp_path}/teacher"
    assert teacher.vectors == tmp_path / "v.parquet"
    assert config(teacher={"model": "st:org/name"}).teacher.model == "st:org/name"


def test_the_projection_fitted_is_the_map_where_there_is_one():
    rng = np.random.default_rng(0)
    student = rng.standard_normal((4000, 6)).astype(np.float32)
    weight = rng.standard_normal((3, 6)).astype(np.float32)
    found = fit_projection(student, student @ weight.T).numpy()
    np.testing.assert_allclose(found, weight / 1.01, atol=0.02)  # with the smallest ridge, 0.01


def test_a_projection_of_noise_is_fitted_with_a_large_ridge():
    rng = np.random.default_rng(0)
    student = rng.standard_normal((40, 30)).astype(np.float32)
    teacher = student @ rng.standard_normal((30, 3)) + 20 * rng.standard_normal((40, 3))
    found = fit_projection(student, teacher.astype(np.float32)).numpy()
    plain = np.linalg.lstsq(student, teacher, rcond=None)[0].T
    assert np.linalg.norm(found) < np.linalg.norm(plain) / 2


def test_one_text_is_enough_to_fit_a_projection():
    found = fit_projection(np.ones((1, 2), np.float32), np.ones((1, 3), np.float32)).numpy()
    # (1 + 10, 1; 1, 1 + 10) w = (1, 1) with the largest ridge: w = 1 / 12.
    np.testing.assert_allclose(found, np.full((3, 2), 1 / 12), atol=1e-6)


def test_agreement_by_hand():
    # Cosines of pairs (12, 13, 23): the teacher's 1, 0, 0 and the student's 0, 1, 0.
    teacher = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    student = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    found = measure_agreement(student, teacher, projected=teacher[::-1])
    # The cosines of the rows are 0, 1 and 0. Ranks (3, 1.5, 1.5) and (1.5, 3, 1.5) correlate -0.5.
    assert found == pytest.approx({"teacher_cosine": 1 / 3, "teacher_spearman": -0.5})


def test_neighbours_are_compared_without_the_text_itself():
    from embedder.training.distillation.run import shared_neighbours

    ours = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]], dtype=np.float32)
    theirs = np.array([[1, 0.1, 0.9], [0.1, 1, 0.2], [0.9, 0.2, 1]], dtype=np.float32)
    # The nearest of each row: 1, 0, 1 and 2, 2, 0: none in common.
    assert shared_neighbours(ours, theirs, 1) == 0
    assert shared_neighbours(ours, ours, 1) == 1


@pytest.mark.parametrize(
    ("history", "stalled"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.6], False),  # five evaluations have no earlier one
        ([0.5, 0.6, 0.6, 0.6, 0.6, 0.6], False),  # the first of the last five was better
        ([0.6, 0.6, 0.5, 0.6, 0.5, 0.6], True),
        ([0.6, 0.5, 0.5, 0.5, 0.5, 0.6005], True),  # by less than 0.001
        ([0.6, 0.5, 0.5, 0.5, 0.5, 0.602], False),
    ],
)
def test_a_student_that_learns_no_more_is_told_from_one_that_does(history, stalled):
    line = describe_stall(history, 1e-4)
    assert (line is not None) == stalled
    if line is not None:
        assert "at best). At the rate 0.0001" in line
