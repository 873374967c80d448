"""Tests of paired scores, bootstrap intervals, and corrections for many tests at once."""

from benchmarks.significance.bootstrap import (
    bootstrap_means,
    bootstrap_spearman,
    percentile_interval,
    shifted_bootstrap_p,
    spearman,
)
from benchmarks.significance.correction import adjust_benjamini_hochberg, adjust_holm
from benchmarks.significance.paired import (
    effect_size,
    paired_t_test,
    randomisation_test,
    smallest_wilcoxon_p,
    wilcoxon_test,
)

__all__ = [
    "randomisation_test",
    "wilcoxon_test",
    "smallest_wilcoxon_p",
    "paired_t_test",
    "effect_size",
    "bootstrap_means",
    "bootstrap_spearman",
    "percentile_interval",
    "shifted_bootstrap_p",
    "spearman",
    "adjust_holm",
    "adjust_benjamini_hochberg",
]
