"""Files of one run that state the same numbers give one away that was changed in one of them, with all its hashes."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lineage.checks.case import Case
from lineage.checks.numbers import Numbers, check_numbers, disagreements
from lineage.graph import Graph
from lineage.model import Fault
from lineage.records import ARCHIVE, files_of
from lineage.repository import Repository
from lineage.states import open_state
from lineage.verify import verify
from tests.lineage.simulated import Made, Project

ROOT = Path(__file__).parents[2]
RECORDS = sorted(path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "reports").rglob(ARCHIVE))
SCORES = {arm: {"ppl": 5.1234567891 + i, "bits": 2.9876543219 - i} for i, arm in enumerate(("base", "short", "long"))}
ROWS = [{"arm": arm, "two": {"ppl": s["ppl"], "bits": s["bits"]}, "n": 42} for arm, s in SCORES.items()]
METRICS, COMPARISON = "eval/metrics.json", "eval/comparison.json"


def differing(a: Any, b: Any) -> set[tuple[str, str]]:
    """Keys in one file and in the other whose numbers disagree."""
    return {(one.key, other.key) for one, other in disagreements(Numbers(a), Numbers(b))}


def changed(content: Any, *path: Any, by: float = -2.0) -> Any:
    """A copy with another number at a path."""
    copy = json.loads(json.dumps(content))
    inner = copy
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] += by
    return copy


def test_what_agrees_is_not_named() -> None:
    assert differing(SCORES, ROWS) == differing(ROWS, SCORES) == set()


@pytest.mark.parametrize("arm", SCORES)
def test_a_number_is_told_by_what_the_others_say(arm: str) -> None:
    place = f"{[*SCORES].index(arm)}.two.ppl"
    assert differing(changed(SCORES, arm, "ppl"), ROWS) == {(f"{arm}.ppl", place)}
    assert differing(SCORES, changed(ROWS, [*SCORES].index(arm), "two", "ppl")) == {(f"{arm}.ppl", place)}


def test_numbers_that_change_places_are_told() -> None:
    swapped = {**SCORES, "short": SCORES["long"], "long": SCORES["short"]}
    more = {**SCORES, **{f"more{i}": {"ppl": 6.3333333 + i / 7, "bits": 1.3333333 + i / 7} for i in range(2)}}
    rows = [{"arm": arm, "two": scores} for arm, scores in more.items()]
    assert {one for one, _ in differing({**more, **swapped}, rows)} == {
        f"{arm}.{key}" for arm in ("short", "long") for key in ("ppl", "bits")
    }


def test_many_numbers_take_no_minutes() -> None:
    flat = {f"k{i}": i + 0.123456789 for i in range(10_000)}
    rows = [{"name": name, "value": value + (1 if name == "k7" else 0)} for name, value in flat.items()]
    started = time.perf_counter()
    assert differing({name: {"value": value} for name, value in flat.items()}, rows) == {("k7.value", "7.value")}
    assert differing(flat, {**flat, "k7": 1e400, "k8": 10**400}) == set()
    assert time.perf_counter() - started < 5


def test_a_table_is_a_file_of_numbers() -> None:
    table = [{"arm": arm, "ppl": str(scores["ppl"])} for arm, scores in SCORES.items()]
    assert differing(changed(SCORES, "long", "ppl"), table) == {("long.ppl", "2.ppl")}


def rounded(scores: Any, rows: Any) -> None:
    for row in rows:
        row["two"]["ppl"] = round(row["two"]["ppl"], 3)


def last_place(scores: Any, rows: Any) -> None:
    scores["long"]["ppl"] *= 1 + 2e-16


def no_counterpart(scores: Any, rows: Any) -> None:
    scores["mean"] = {"ppl": 6.0, "bits": 2.0}
    rows.append({"arm": "median", "two": {"ppl": 6.1, "bits": 2.1}})


def another_measure(scores: Any, rows: Any) -> None:
    """Two are measured in one way and two in another, and each row has both."""
    scores["more"] = {"ppl": 3.3333333333, "bits": 1.1111111111}
    rows.append({"arm": "more", "two": {"ppl": 3.5, "bits": 1.5}, "one": dict(scores["more"])})
    rows[2]["one"], rows[2]["two"] = dict(scores["long"]), {"ppl": 9.9, "bits": 9.8}


def few(scores: Any, rows: Any) -> None:
    del scores["base"]
    scores["long"]["ppl"] = 7.7


@pytest.mark.parametrize("change", [rounded, last_place, no_counterpart, another_measure, few])
def test_what_need_not_be_the_same_number_is_not_named(change: Callable[[Any, Any], None]) -> None:
    scores, rows = json.loads(json.dumps([SCORES, ROWS]))
    change(scores, rows)
    assert differing(scores, rows) == differing(rows, scores) == set()


def _evaluate(project: Project) -> Made:
    return {"eval": {"metrics.json": json.dumps(SCORES).encode(), "comparison.json": json.dumps(ROWS).encode()}}


def test_a_forgery_of_metric_lock_and_commit_is_found(simulated: Project, tmp_path: Path) -> None:
    project = simulated.copied(tmp_path / "project")
    project.manifests = False
    project.stages["evaluate"] = replace(project.stages["evaluate"], output="eval", run=_evaluate)
    del project.stages["report"]
    project.write_lock({})
    project.run()
    forged = json.dumps(changed(SCORES, "short", "ppl")).encode()
    project.commit("honest")
    project.write(METRICS, forged)
    lock = project.lock()
    project.write_lock({**lock, "evaluate": {**lock["evaluate"], "outs": [project._entry("eval")]}})
    project.commit("forged")
    assert verify(Repository(project.root), "HEAD~1").findings == ()
    (finding,) = verify(Repository(project.root), "HEAD").findings
    assert (finding.fault, finding.run, finding.path) == (Fault.NUMBERS, "evaluate", METRICS)
    assert (
        finding.what
        == f"short.ppl is {SCORES['short']['ppl'] - 2}, {COMPARISON} says {SCORES['short']['ppl']} (1.two.ppl)"
    )


def test_the_study_s_perplexity_can_not_be_changed_in_its_metrics_alone() -> None:
    metrics, comparison = (
        json.loads((files_of(ROOT / "reports/study") / f"reports/{name}.json").read_text())
        for name in ("metrics", "comparison")
    )
    forged = changed(metrics, "lm", "sm_iso_update", "ppl")
    assert differing(metrics, comparison) == set()
    assert differing(forged, comparison) == {("lm.sm_iso_update.ppl", "arm_rows.2.perplexity.two_pass.ppl.estimate")}


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS)
def test_the_numbers_of_every_kept_record_agree(record: str) -> None:
    graph = Graph(open_state(Repository(ROOT), str(ROOT / record)))
    assert [*check_numbers(Case(graph, (*graph.runs,)))] == []
