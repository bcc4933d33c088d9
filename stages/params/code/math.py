"""`code.scoring.math`: how answers to maths problems are compared with the right ones."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section


class MathParams(Section):
    """Comparison by the math-verify library, in a process of its own."""

    float_rounding: int = Field(ge=0, le=30)
    """Decimals that count where one of the two is a decimal fraction (the library's own value is 6)."""
    numeric_precision: int = Field(ge=1, le=100)
    """Digits of a numeric comparison (the library's own value is 15)."""
    step_seconds: int = Field(ge=1, le=600)
    """Seconds for reading a text and for each comparison, after which it counts as different (the library's own
    value is 5)."""
    total_seconds: int = Field(ge=1, le=3600)
    """Seconds for one verdict, after which the process is ended and the answer is wrong."""
    memory_mib: int = Field(ge=512)
    """Memory of that process."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.total_seconds < self.step_seconds:
            yield (
                f"total_seconds {self.total_seconds} with step_seconds {self.step_seconds} is impossible; "
                "expected at least as many"
            )
