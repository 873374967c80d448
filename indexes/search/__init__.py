"""From query vectors to hits: selection, filters, ranking."""
