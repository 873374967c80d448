import mmap
import time

from benchmarks.scoring.costs import FLOP_TOKENS, PeakMemory, measure_latency, pooling_flops


def test_peak_memory_sees_what_was_held_for_a_moment():
    with PeakMemory() as before:
        pass
    # Not from malloc, which may give pages that the process holds already.
    with PeakMemory() as memory, mmap.mmap(-1, 64 << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        time.sleep(0.2)
    assert memory.bytes >= before.bytes + (60 << 20)


def test_latency_is_of_the_first_hundred_texts_after_one_to_warm_up():
    searched = []

    def search(text):
        searched.append(text)
        time.sleep(0.02 if text == "t9" else 0.0)

    found = measure_latency(search, [f"t{number}" for number in range(150)])
    assert len(searched) == 101
    assert searched[:2] == ["t0", "t0"]
    assert 0 <= found["query_p50_seconds"] < 0.02
    assert found["query_p50_seconds"] <= found["query_p95_seconds"]


def test_no_text_has_no_latency():
    assert measure_latency(lambda text: None, []) == {}


class Stand:
    """What ``pooling_flops`` reads of an embedder."""

    device = "cpu"

    def __init__(self, pooling, attention, width=16, layers=4):
        from embedder import VariantSpec
        from embedder.pooling.modules import PoolingOptions
        from embedder.pooling.registry import PoolingShape, build_pooling

        settings = {"heads": 2, "head_width": 8} if pooling == "last_layer" else {}
        options = PoolingOptions(**settings)
        self.spec = VariantSpec(
            base="b", pooling=pooling, attention=attention, pooling_options=options
        )
        self.pooling = build_pooling(pooling, PoolingShape(width, layers), options)
        self.backbone = type("Backbone", (), {"width": width, "layer_count": layers})
        self.backbone.attention = type("Attention", (), {"is_causal": attention == "causal"})


def test_the_mean_of_tokens_costs_one_or_two_operations_a_number():
    flops = pooling_flops(Stand("mean", "causal"))
    # the mask times the states, then the sum, then the division by the count
    assert FLOP_TOKENS * 16 <= flops <= 3 * FLOP_TOKENS * 16


def test_a_trainable_pooling_costs_its_matrix_products_at_least():
    stand = Stand("last_layer", "bidirectional")
    flops = pooling_flops(stand)
    # keys and values: two products of (128, 16) with (16, 16), two operations a multiply-add
    assert flops >= 2 * 2 * FLOP_TOKENS * 16 * 16
    assert flops > pooling_flops(Stand("mean", "bidirectional"))
