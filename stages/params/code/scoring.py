"""`code.scoring`: how generated answers are run and judged, and how generated code is walled in."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section, Seed
from scoring.sandbox_kinds import Isolation
from stages.params.code.math import MathParams


class SandboxParams(Section):
    """The sandbox. Generated code is hostile until proven otherwise."""

    isolation: Isolation
    """namespaces, or process where those can't be had: limits only, for code that you trust not to be malicious."""
    importable: list[str]
    """Installed packages that programs may import beside the standard library."""
    seed: Seed
    """Of Python's `random`, NumPy's global generator, and hashes in a program's process."""
    call_cpu_s: float = Field(gt=0, le=600)
    """CPU seconds of one call of a program's function, and of loading the program. CPU time, so that a busy machine
    changes no verdict."""
    call_wall_s: float = Field(gt=0, le=3600)
    """Seconds that one call may wait, for programs that sleep. What the machine does elsewhere doesn't count."""
    program_wall_s: int = Field(ge=1, le=3600)
    """CPU seconds of a program with all of its calls, and seconds that it may wait in all."""
    memory_mib: int = Field(ge=64)
    """Memory of a program."""
    output_mib: int = Field(ge=1, le=1024)
    """All outputs of a program together."""
    nesting: int = Field(ge=1, le=150)
    """Depth of lists and other containers in an output."""
    files_mib: int = Field(ge=1)
    """All that a program writes to its temporary folder."""
    files: int = Field(ge=16)
    """Files in it."""
    open_files: int = Field(ge=16)
    """Files that a program has open at once."""
    threads: int = Field(ge=8)
    """Threads of a program, about. It can't start processes."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.call_wall_s < self.call_cpu_s:
            cpu_s = self.call_cpu_s
            yield f"call_wall_s {self.call_wall_s} with call_cpu_s {cpu_s} is impossible; expected as much or more"
        if self.output_mib > self.memory_mib:
            yield f"output_mib {self.output_mib} with memory_mib {self.memory_mib} is impossible; expected at most that"
        if self.program_wall_s < self.call_wall_s:
            yield (
                f"program_wall_s {self.program_wall_s} with call_wall_s {self.call_wall_s} is impossible; "
                "expected as much or more"
            )


class ScoringParams(Section):
    """Scoring of answers, which needs no model."""

    extraction_lines: int = Field(ge=1, le=1000)
    """Lines of an answer in which EvalPlus's extraction looks for the program; blank ones don't count in longer
    answers. It tries every pair of lines."""
    batch_size: int = Field(ge=1)
    """Answers that are a unit of work, which a killed stage doesn't repeat."""
    workers: int = Field(ge=1, le=256)
    """Programs that run at once; changes no verdict."""
    sandbox: SandboxParams
    math: MathParams
