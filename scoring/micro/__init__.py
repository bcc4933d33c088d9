"""Generators of small problems: pure functions of a seed, which know no files."""
