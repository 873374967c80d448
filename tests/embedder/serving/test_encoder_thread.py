"""One thread for everything that a model computes."""

import threading

import pytest

from embedder.serving import EncoderThread


def test_calls_run_in_one_thread_in_order_and_give_their_results():
    thread = EncoderThread()
    order = []
    release = threading.Event()
    first = thread.post(release.wait)
    later = [thread.post(lambda n=n: order.append(n)) for n in range(3)]
    release.set()
    assert first.result(120) is True
    for future in later:
        future.result(120)
    assert order == [0, 1, 2]
    names = {thread.call(threading.current_thread) for _ in range(3)}
    assert len(names) == 1 and names.pop() is not threading.current_thread()


def test_an_error_reaches_the_caller_and_the_thread_goes_on():
    thread = EncoderThread()
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)
    assert thread.call(lambda: 7) == 7
