"""Examples of what Pressrun can be pointed at."""
