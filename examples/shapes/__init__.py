"""A closed world of coloured shapes with models small enough to train and run on a CPU."""
