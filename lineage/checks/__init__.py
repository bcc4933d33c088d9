"""The checks of `verify`, one question a file. Each takes a `Case` and yields what it finds."""
