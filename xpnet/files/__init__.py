"""Files: one writer, layers and settings as data, and checkpoints made of the two."""
