"""One function per source: each yields raw pairs, which ``build_data`` filters."""
