"""The vector stores."""
