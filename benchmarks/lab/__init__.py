"""How the figures in the docs are made; not part of the wheel."""
