"""The paper's Table 3 (arXiv 2510.17206, ICLR 2026), as far as its cells are known here.

All are second-hand, from reading notes; a cell that is not known isn't here and stays blank. Means of 5 seeds.
"""

from typing import NamedTuple

PROFILE = "paper"
"""The profile whose settings are the table's."""
TITLE = "Table 3: pass@1 in per cent by number of steps"


class CodeEntry(NamedTuple):
    """A cell pair of Table 3, in per cent."""

    binary: float
    sm: float


TABLE_3: dict[tuple[str, str, str], CodeEntry] = {
    ("dream", "1/4", "HumanEval"): CodeEntry(18.9, 25.6),
    ("dream", "1/4", "MBPP"): CodeEntry(26.6, 32.8),
    ("dream", "1/4", "MBPP+"): CodeEntry(29.2, 36.7),
    ("dream_coder", "1/4", "MBPP"): CodeEntry(25.9, 33.2),
    ("dream", "1/2", "MBPP+"): CodeEntry(39.6, 54.7),
    ("dream_coder", "1/2", "MBPP"): CodeEntry(49.8, 56.2),
    ("dream_coder", "1/1", "HumanEval"): CodeEntry(75.7, 76.2),
    ("dream", "1/1", "HumanEval+"): CodeEntry(53.0, 50.0),
}
"""By family, cell and benchmark."""
ARM = "sm"
"""The arm that stands for the paper's SM: as many updates as the binary one."""
REFERENCE_POINTS = (
    "Measurements of the un-finetuned bases by others: Dream-Instruct 55.5 to 57.9 on HumanEval and 58.2 to 58.8 on "
    "MBPP, Dream-Coder-Instruct 74.4 on HumanEval; 3 to 10 points between two harnesses are common."
)
