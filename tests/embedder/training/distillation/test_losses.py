import math

import pytest
import torch

from embedder.training.distillation.losses import LOSSES, Lessons, get_loss
from retrieval.errors import UnknownNameError


def lessons(student, teacher, *, projected=None, triples=(), temperature=1.0):
    rows = torch.tensor(student, dtype=torch.float32)
    return Lessons(
        rows,
        rows if projected is None else torch.tensor(projected, dtype=torch.float32),
        torch.tensor(teacher, dtype=torch.float32),
        torch.tensor(triples, dtype=torch.int64).view(-1, 3),
        temperature,
    )


def test_cosine_is_one_less_the_cosine_at_the_teachers_width():
    found = LOSSES["cosine"].compute(
        lessons([[9.0]] * 3, [[1, 0], [0, 1], [-1, 0]], projected=[[5, 0], [3, 4], [2, 0]])
    )
    assert found.tolist() == pytest.approx([1 - 1, 1 - 0.8, 1 + 1], abs=1e-6)


def test_similarity_is_the_divergence_of_the_likeness_to_the_others():
    # The cosines of the teacher to texts 2 and 3 are 1 and 0, those of the student 0 and 0.
    found = LOSSES["similarity"].compute(
        lessons([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0], [1, 0], [0, 1]])
    )
    high, low = math.e / (math.e + 1), 1 / (math.e + 1)
    expected = high * math.log(high / 0.5) + low * math.log(low / 0.5)
    assert found.tolist() == pytest.approx([expected, expected, 0], abs=1e-6)


def test_a_low_temperature_makes_similarity_look_at_the_nearest():
    # exp(20 x 1) beside exp(20 x 0): the first text is all of the teacher's likeness, and half of
    # the student's, whatever the widths.
    found = LOSSES["similarity"].compute(
        lessons([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0], [1, 0], [0, 1]], temperature=0.05)
    )
    assert found[0].item() == pytest.approx(math.log(2), abs=1e-6)


def test_similarity_of_a_text_alone_is_nothing():
    assert LOSSES["similarity"].compute(lessons([[1.0, 2.0]], [[1.0]])).tolist() == [0]


def test_margin_mse_is_the_squared_difference_of_margins():
    # Student: cos(q, p) = 0.6 and cos(q, n) = 0, a margin of 0.6. Teacher: 1 and 0, 1.
    found = LOSSES["margin_mse"].compute(
        lessons([[1, 0], [3, 4], [0, 2]], [[1, 0], [1, 0], [0, 1]], triples=[(0, 1, 2)])
    )
    assert found.tolist() == pytest.approx([(0.6 - 1) ** 2], abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_equal_to_its_teacher_has_no_loss(name):
    rows = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator()), dim=-1)
    given = Lessons(rows, rows, rows, torch.tensor([[0, 1, 2]]), 0.1)
    assert LOSSES[name].compute(given).abs().max() < 1e-5
    assert "arXiv" in LOSSES[name].compute.__doc__


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"similarity"):
        get_loss("similarty")
