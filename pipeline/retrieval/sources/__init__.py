"""Files to texts and images: one module for each family of formats, joined in `reader`."""
