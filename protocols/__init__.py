"""The front-ends: one package a dialect, each of the same shape, none knowing another. They know `broker`."""
