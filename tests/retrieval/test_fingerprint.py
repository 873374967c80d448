import json

import pytest

from retrieval import Fingerprint, check_fingerprints
from retrieval.errors import FingerprintError

MEAN = Fingerprint("base/mean", {"pooling": "mean", "layers": 2})
EOS = Fingerprint("base/eos", {"pooling": "eos", "layers": 2})


def test_the_digest_depends_on_settings_only():
    renamed = Fingerprint("other", {"layers": 2, "pooling": "mean"})
    assert renamed.digest == MEAN.digest
    assert EOS.digest != MEAN.digest
    # sha256sum of {"a":1}
    assert Fingerprint("m", {"a": 1}).digest == (
        "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    )


def test_differences_name_each_setting_that_differs():
    assert MEAN.differences(EOS) == ["pooling 'mean' against 'eos'"]
    assert MEAN.differences(MEAN) == []
    assert Fingerprint("m", {"a": 1}).differences(Fingerprint("m", {})) == ["a 1 against None"]


def test_json_gives_the_same_fingerprint_back():
    assert Fingerprint.from_json(json.loads(json.dumps(MEAN.to_json()))) == MEAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "fingerprint.model is .*; expected a string"),
        ({"settings": []}, "fingerprint.settings is a list; expected a table"),
        ({"settings": {"pooling": "eos"}}, "digest does not belong"),
        ({"digest": None}, "digest does not belong"),
    ],
)
def test_json_that_was_changed_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Fingerprint.from_json({**MEAN.to_json(), **change})


def test_equal_settings_pass_whatever_the_names():
    check_fingerprints(MEAN, Fingerprint("other", dict(MEAN.settings)))


def test_unequal_settings_name_both_models_and_what_to_type():
    with pytest.raises(FingerprintError) as caught:
        check_fingerprints(MEAN, EOS, where="ponds/one")
    assert str(caught.value) == (
        "The index ponds/one was made with 'base/mean', the query comes from 'base/eos': "
        "pooling 'mean' against 'eos'. Their vectors cannot be compared. "
        "Search with --model 'base/mean', or index the corpus again."
    )


def test_a_model_that_changed_under_its_name_is_not_advised():
    with pytest.raises(FingerprintError) as caught:
        check_fingerprints(MEAN, Fingerprint(MEAN.model, {**MEAN.settings, "pooling": "eos"}))
    assert str(caught.value).endswith("cannot be compared. Index the corpus again.")
