"""restore: train, test and compare image-restoration networks."""

__version__ = "0.1.0"
