"""Workers: what an answer makes the judge do is done outside of this process, within bounds."""

import resource
import time

import pytest

from runner.section import validate
from scoring.code_scoring import Judged, Verdict
from scoring.problems import Problem
from stages.code_score import Scorer, Task, _run, _too_costly
from stages.params.code.scoring import SandboxParams, ScoringParams
from stages.shared.sandboxes import sandboxes
from tests.stages.test_code_score import SANDBOX, VALUES

pytestmark = pytest.mark.slow
PARAMS = validate(
    SandboxParams,
    {**SANDBOX, "call_cpu_s": 8.0, "call_wall_s": 60.0, "program_wall_s": 60, "output_mib": 4},
    "params.yaml",
)
SOLUTIONS = {
    "a_range_of_huge_bounds": "range(-(1 << 7000000), 1 << 7000000, 3)",
    "an_array_that_is_broadcast": "[[[0.0]] * 3500] * 100",
    "many_parts": "[[]] * 300000",
    "wrong": "0",
}
ZEROS = Problem(
    set="s",
    task_id="s/0",
    kind="code",
    request="Zeros.",
    entry_point="f",
    base_input=[[]],
    base_expected=[[0.0] * 100],
)


def test_the_judge_itself_spends_nothing_on_what_an_answer_returns() -> None:
    tasks = [Task(ZEROS, f"def f():\n    return {text}\n") for text in (*SOLUTIONS.values(), "[0.0] * 100")]
    with sandboxes(PARAMS, 1) as workers:
        started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        *hostile, right = workers.map(_run, tasks, _too_costly)
        assert time.process_time() - started < 0.5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20 << 10
    assert right.base == Judged(Verdict.PASS)
    verdicts = [made.base.verdict for made in hostile if made.base is not None]
    assert len(verdicts) == len(SOLUTIONS) and set(verdicts) <= {Verdict.FAIL, Verdict.LIMIT}


def test_an_answer_that_takes_too_long_to_read_is_judged_as_it_is() -> None:
    """No run of its lines parses, and each fails at its end only."""
    text = "\n".join(["[" + "-" * 300 + "1,"] * 190)
    scoring = validate(ScoringParams, {**VALUES, "extraction_lines": 200}, "params.yaml")
    quick = validate(SandboxParams, {**SANDBOX, "call_wall_s": 1.0, "program_wall_s": 1}, "params.yaml")
    with sandboxes(quick, 1) as workers:
        scorer = Scorer(scoring, workers, None)  # type: ignore[arg-type] - no maths
        started = time.process_time()
        assert scorer._solutions([{"text": text}], [ZEROS]) == [text]
        assert time.process_time() - started < 0.5
