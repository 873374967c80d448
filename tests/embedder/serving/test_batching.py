import threading

import numpy as np
import pytest

from embedder.serving.batching import Batcher, QueueFullError
from tests.embedder.serving import fakes


@pytest.fixture
def start(encoder):
    started = []

    def run(batch_tokens=10, queue_tokens=1000, **options):
        batcher = Batcher(batch_tokens, queue_tokens, **options)
        batcher.start()
        started.append(batcher)
        return batcher

    yield run
    encoder.gate.set()
    for batcher in started:
        batcher.stop()


@pytest.fixture
def model(encoder):
    return fakes.make_model(encoder)


def submit(batcher, model, *texts, role="document"):
    return batcher.submit(model, model.tokenize(texts, role).rows)


def hold(batcher, encoder, model):
    """Keep the encoder busy with the text "first", so that what follows has to wait."""
    encoder.gate.clear()
    encoder.entered.clear()
    job = submit(batcher, model, "first")
    assert encoder.entered.wait(120)
    return job


def test_a_lone_text_is_encoded_at_once_and_alone(start, model, encoder):
    job = submit(start(), model, "a b")
    np.testing.assert_array_equal(job.result.result(120), [encoder.vector("a b")])
    assert encoder.batches == [("document", ["a b"])]


def test_what_waited_is_encoded_together_up_to_the_token_budget(start, model, encoder):
    batcher = start(batch_tokens=10)
    hold(batcher, encoder, model)
    jobs = [submit(batcher, model, f"{name} x x x") for name in "abcde"]  # 4 tokens each
    encoder.gate.set()
    for name, job in zip("abcde", jobs, strict=True):
        np.testing.assert_array_equal(job.result.result(120), [encoder.vector(f"{name} x x x")])
    # 4 + 4 fit in 10 tokens, a third 4 does not.
    assert [len(texts) for _, texts in encoder.batches] == [1, 2, 2, 1]
    assert encoder.batches[1][1] == ["a x x x", "b x x x"]  # the longest-waiting first


def test_a_request_longer_than_a_batch_is_spread_and_comes_back_in_order(start, model, encoder):
    texts = [f"{number} x x" for number in range(7)]  # 3 tokens each, 3 of them in 10
    job = submit(start(batch_tokens=10), model, *texts)
    expected = [encoder.vector(text) for text in texts]
    np.testing.assert_array_equal(job.result.result(120), expected)
    assert [len(batch) for _, batch in encoder.batches] == [3, 3, 1]


def test_a_text_longer_than_the_budget_goes_alone_wherever_it_stands(start, model, encoder):
    long = " ".join(["x"] * 15)
    job = submit(start(batch_tokens=10), model, "a", long, "b")
    assert job.result.result(120).shape == (3, 16)
    assert [batch for _, batch in encoder.batches] == [["a"], [long], ["b"]]


def test_queries_and_documents_share_a_batch_but_not_a_prompt(start, model, encoder):
    batcher = start()
    hold(batcher, encoder, model)
    document = submit(batcher, model, "same")
    query = submit(batcher, model, "same", role="query")
    encoder.gate.set()
    np.testing.assert_array_equal(document.result.result(120), [encoder.vector("same")])
    np.testing.assert_array_equal(query.result.result(120), [encoder.vector("same", "query")])
    assert encoder.batches[1:] == [("query", ["same"]), ("document", ["same"])]


def test_models_take_turns_by_how_long_their_texts_waited(start, model, encoder):
    other = fakes.HashingEncoder("other")
    second = fakes.make_model(other)
    batcher = start(batch_tokens=100)
    hold(batcher, encoder, model)
    jobs = [
        submit(batcher, second, "b"),
        submit(batcher, model, "a"),
        submit(batcher, second, "c"),
    ]
    encoder.gate.set()
    for job in jobs:
        job.result.result(120)
    assert other.batches == [("document", ["b", "c"])]
    assert encoder.batches == [("document", ["first"]), ("document", ["a"])]


def test_a_full_queue_refuses_but_takes_one_long_request_when_empty(start, model, encoder):
    batcher = start(queue_tokens=5)
    hold(batcher, encoder, model)  # is with the encoder: does not wait
    accepted = submit(batcher, model, "x x x x x x x")  # 7 > 5, but nothing else waits
    with pytest.raises(QueueFullError) as refused:
        submit(batcher, model, "y")
    assert 1 <= refused.value.retry_seconds <= 60
    assert (batcher.waiting_tokens, batcher.waiting_texts) == (7, 1)
    encoder.gate.set()
    accepted.result.result(120)
    assert (batcher.waiting_tokens, batcher.waiting_texts) == (0, 0)
    submit(batcher, model, "y").result.result(120)


def test_what_was_cancelled_never_reaches_the_encoder(start, model, encoder):
    batcher = start()
    hold(batcher, encoder, model)
    gone = submit(batcher, model, "gone gone", "gone")
    kept = submit(batcher, model, "kept")
    batcher.cancel(gone)
    assert (batcher.waiting_tokens, batcher.waiting_texts) == (1, 1)
    encoder.gate.set()
    kept.result.result(120)
    assert all("gone" not in texts for _, texts in encoder.batches)
    assert not gone.result.done()


@pytest.mark.parametrize(("bad", "error"), [("poison", RuntimeError), ("exit", SystemExit)])
def test_an_error_ends_the_request_that_causes_it_and_no_other(start, model, encoder, bad, error):
    batcher = start(batch_tokens=100)
    hold(batcher, encoder, model)
    before, failing, after = (submit(batcher, model, text) for text in ("a", bad, "b"))
    encoder.gate.set()
    np.testing.assert_array_equal(before.result.result(120), [encoder.vector("a")])
    np.testing.assert_array_equal(after.result.result(120), [encoder.vector("b")])
    with pytest.raises(error):
        failing.result.result(120)
    assert submit(batcher, model, "c").result.result(120).shape == (1, 16)  # the thread lives


def test_the_rest_of_a_failed_request_is_dropped(start, model, encoder):
    batcher = start(batch_tokens=1)
    job = submit(batcher, model, "poison", "a", "b")
    with pytest.raises(RuntimeError):
        job.result.result(120)
    submit(batcher, model, "next").result.result(120)
    assert [texts for _, texts in encoder.batches] == [["poison"], ["next"]]
    assert (batcher.waiting_tokens, batcher.waiting_texts) == (0, 0)


def test_vectors_of_a_wrong_shape_are_an_error(start, model, encoder, monkeypatch):
    monkeypatch.setattr(encoder, "encode_tokens", lambda rows: np.zeros((1, 3), np.float32))
    with pytest.raises(Exception, match=r"shape \(1, 3\) for 2"):
        submit(start(), model, "a", "b").result.result(120)


def test_a_report_that_fails_does_not_stop_the_thread(start, model, caplog):
    def fail(report):
        raise ValueError("no disk for reports")

    batcher = start(report=fail)
    for text in ("a", "b"):
        submit(batcher, model, text).result.result(120)
    assert "could not be reported" in caplog.text


def test_reports_say_what_a_batch_was(start, model, encoder):
    reports = []
    batcher = start(report=reports.append)
    hold(batcher, encoder, model)
    jobs = [submit(batcher, model, "a b", "c"), submit(batcher, model, "d")]
    encoder.gate.set()
    for job in jobs:
        job.result.result(120)
    batcher.stop()
    assert [(r.texts, r.tokens, len(r.waited_seconds), r.failed) for r in reports] == [
        (1, 1, 1, False),
        (3, 4, 2, False),  # 2 + 1 + 1 tokens of two requests
    ]
    assert all(report.seconds >= 0 for report in reports)


def test_stopping_finishes_what_was_accepted_and_refuses_the_rest(start, model, encoder):
    batcher = start(batch_tokens=1)
    hold(batcher, encoder, model)
    accepted = [submit(batcher, model, f"t{number}") for number in range(5)]
    stopping = threading.Thread(target=batcher.stop)
    stopping.start()
    fakes.wait_until(lambda: not batcher.alive)
    with pytest.raises(QueueFullError):
        submit(batcher, model, "late")
    encoder.gate.set()
    stopping.join(120)
    assert not stopping.is_alive()
    assert all(job.result.done() for job in accepted)


def test_no_texts_need_no_encoder(start, model, encoder):
    assert submit(start(), model).result.result(120).shape == (0, 16)
    assert encoder.batches == []
