"""Does the paper hold? Every variant x seed trained alike, scored, compared and judged."""
