"""Floor 6. Our parts inside other frameworks. A bridge acts when it is imported, and only then."""
