"""Files to texts and pictures: a module for each kind of file, brought together in `reader`."""
