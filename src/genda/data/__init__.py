"""Your own gridded data: look at a file, make a training store of it, and its statistics."""
