"""The ``millpond`` command: the only package that prints and exits."""

import sys

try:
    from cli.app import app
except KeyboardInterrupt:  # Ctrl-C before there is a command that would say so
    print("Interrupted.", file=sys.stderr)
    sys.exit(130)

__all__ = ["app"]
