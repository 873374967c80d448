"""How the built-in model is made: its training data and its configs."""
