"""Speed side by side: one script a comparison, each with all contestants in one interleaved run."""
