"""One function a source: each yields raw pairs; judging them is left to ``build_data``."""
