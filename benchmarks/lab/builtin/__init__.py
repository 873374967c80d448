"""How the model in the box is made: its training data, its config, its score table."""
