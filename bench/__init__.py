"""Measures ION beside an empty chain of the same shape. See README.md."""
