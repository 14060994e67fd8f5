"""Fixed splits as memory-mapped arrays, and the sources and augmentations that go with them."""
