"""What all tests share: property tests draw the same examples every time. `--golden-dir` is in pytest_golden.py."""

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")
