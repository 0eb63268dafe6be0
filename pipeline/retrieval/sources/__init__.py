"""Files to texts and images: a module for each kind of file, brought together in `reader`."""
