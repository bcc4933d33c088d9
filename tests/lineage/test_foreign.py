"""The record of projects that are not ours: each run, what it read, who made that, parameters, and what is unknown.

The projects are in projects.py.
"""

from pathlib import Path

import pygit2
import pytest

from lineage.checks.case import Case
from lineage.contents import Contents
from lineage.errors import AuditError, Missing
from lineage.graph import Graph
from lineage.ledger import Ledger
from lineage.lockfile import data_run
from lineage.model import Kind
from lineage.pins import pins_of
from lineage.repository import Repository
from lineage.states import open_state
from lineage.targets import find_target
from lineage.trace import Role, Step, Trace, trace
from lineage.used import used
from tests.lineage.projects import conflicted, copied
from tests.pipeline.clones import run

EVERYWHERE = pytest.mark.parametrize("revision", [None, "HEAD"], ids=["workspace", "commit"])
STAGES = {
    "prepare": ["images", "imported.txt", "linked.txt", "raw.csv"],
    "split@train": ["prepared.csv"],
    "split@test": ["prepared.csv"],
    "fit@1-a": ["parts/train/rows.csv"],
    "fit@2-a": ["parts/train/rows.csv"],
    "summary": ["models"],
    "score": ["code", "models/1-a/weights.txt"],
    "old": ["raw.csv"],
    "stamp": [],
    "last": ["old.csv", "stamp.txt", "sub/inner/model.txt"],
    "sub/dvc.yaml:train": ["prepared.csv"],
    "sub/dvc.yaml:report": ["sub/inner/model.txt"],
}
OUTPUTS = {
    "prepare": ["prepared.csv"],
    "split@train": ["parts/train/rows.csv"],
    "split@test": ["parts/test/rows.csv"],
    "fit@1-a": ["models/1-a"],
    "fit@2-a": ["models/2-a"],
    "summary": ["work/summary.txt"],
    "score": ["cached.json", "curve.csv", "metrics.json"],
    "old": ["old.csv"],
    "stamp": ["stamp.txt"],
    "last": ["last.txt"],
    "sub/dvc.yaml:train": ["sub/inner/model.txt"],
    "sub/dvc.yaml:report": ["sub/report.txt"],
    "images.dvc": ["images"],
    "imported.txt.dvc": ["imported.txt"],
    "linked.txt.dvc": ["linked.txt"],
    "raw.csv.dvc": ["raw.csv"],
}
PREPARED = {"prepare", "images.dvc", "imported.txt.dvc", "linked.txt.dvc", "raw.csv.dvc"}


def graph_of(root: Path, revision: str | None = None) -> Graph:
    """The record of a project."""
    return Graph(open_state(Repository(root), revision))


def steps(traced: Trace) -> dict[str, Step]:
    """The runs of a closure by name."""
    return {step.name: step for step in traced.steps}


def producers(step: Step) -> dict[str, tuple[str, ...]]:
    """Input -> who made it."""
    return {read.file.path: read.producers for read in step.inputs}


@EVERYWHERE
def test_every_run_of_a_broad_project_is_known_with_what_it_reads_and_makes(broad: Path, revision: str | None) -> None:
    graph = graph_of(broad, revision)
    assert graph.gaps == []
    assert {run.name: [f.path for f in run.inputs] for run in graph.stages()} == STAGES
    assert {name: [f.path for f in run.outputs] for name, run in graph.runs.items()} == OUTPUTS
    kinds = {name: run.kind for name, run in graph.runs.items() if run.kind is not Kind.STAGE}
    data, imported = Kind.DATA, Kind.IMPORT
    assert kinds == {
        "images.dvc": data,
        "raw.csv.dvc": data,
        "imported.txt.dvc": imported,
        "linked.txt.dvc": imported,
    }


@EVERYWHERE
@pytest.mark.parametrize(
    ("target", "closure"),
    [
        ("prepared.csv", PREPARED),
        ("split", PREPARED | {"split@train", "split@test"}),
        ("work/summary.txt", PREPARED | {"split@train", "fit@1-a", "fit@2-a", "summary"}),
        ("models", PREPARED | {"split@train", "fit@1-a", "fit@2-a"}),
        ("models/2-a/more/size.txt", PREPARED | {"split@train", "fit@2-a"}),
        ("metrics.json:bytes", PREPARED | {"split@train", "fit@1-a", "score"}),
        ("last.txt", PREPARED | {"old", "stamp", "sub/dvc.yaml:train", "last"}),
        ("sub/dvc.yaml:report", PREPARED | {"sub/dvc.yaml:train", "sub/dvc.yaml:report"}),
        ("raw.csv", {"raw.csv.dvc"}),
    ],
)
def test_a_closure_has_what_is_upstream_and_nothing_else(
    broad: Path, target: str, closure: set[str], revision: str | None
) -> None:
    traced = trace(Repository(broad), target, revision)
    assert steps(traced).keys() == closure
    seen: set[str] = set()
    for step in traced.steps:
        assert {name for names in producers(step).values() for name in names} <= seen
        seen.add(step.name)


def test_inputs_know_their_producers_roles_and_blobs(broad: Path) -> None:
    repository = Repository(broad)
    known = steps(trace(repository, "summary")) | steps(trace(repository, "score")) | steps(trace(repository, "last"))
    assert producers(known["summary"]) == {"models": ("fit@1-a", "fit@2-a")}
    assert producers(known["score"]) == {"code": (), "models/1-a/weights.txt": ("fit@1-a",)}
    assert producers(known["sub/dvc.yaml:train"]) == {"prepared.csv": ("prepare",)}
    assert [read.role for read in known["score"].inputs] == [Role.CODE, Role.ARTIFACT]
    assert [read.role for read in known["imported.txt.dvc"].inputs] == [Role.EXTERNAL]
    assert (known["summary"].folder, known["sub/dvc.yaml:train"].folder) == ("work", "sub/inner")
    first = run(["git", "rev-parse", "v1"], broad).strip()
    assert {step.recorded.id for step in known.values() if step.recorded} == {first}


def test_parameters_of_every_format_are_known_with_their_seeds(broad: Path) -> None:
    known = steps(trace(Repository(broad), "last"))
    values = {(p.file, p.key): (p.value, p.seed) for p in known["prepare"].parameters}
    assert values == {
        ("params.yaml", "rows"): (1000.0, False),
        ("config.json", "depth"): ({"seed": 7, "list": [1, 2]}, False),
        ("config.toml", "tool.width"): (2.5, False),
        ("consts.py", "Model.layers"): (4, False),
        ("consts.py", "SEED"): (11, True),
    }
    assert known["prepare"].seeds == ("depth.seed = 7", "SEED = 11")
    assert [(p.file, p.key, p.value) for p in known["sub/dvc.yaml:train"].parameters] == [
        ("sub/params.yaml", "rate", 0.1)
    ]


def test_imports_are_pinned_by_their_revision_or_hash(broad: Path) -> None:
    revision = run(["git", "rev-parse", "HEAD"], broad.parent / "source").strip()
    pins = {pin.where: pin for pin in trace(Repository(broad), "prepare").pins}
    assert (pins["imported.txt.dvc"].revision, pins["imported.txt.dvc"].fixed) == (revision, True)
    assert pins["linked.txt.dvc"].source == str(broad.parent / "elsewhere" / "linked.txt")
    assert pins["linked.txt.dvc"].runs == ("linked.txt.dvc",)


@EVERYWHERE
def test_the_hashes_of_folders_are_those_that_dvc_recorded(broad: Path, monorepo: Path, revision: str | None) -> None:
    for root, paths in ((broad, ["code"]), (monorepo, ["team/one/src", "team/one/lib/inner"])):
        graph = graph_of(root, revision)
        case = Case(graph, tuple(graph.runs))
        read = {file.path: file for each in graph.runs.values() for file in each.inputs}
        assert {path: case.current_hash(read[path]) for path in paths} == {path: read[path].hash for path in paths}


@EVERYWHERE
def test_a_project_in_a_folder_of_its_repository_is_called_as_dvc_does(monorepo: Path, revision: str | None) -> None:
    repository = Repository(monorepo)
    graph = Graph(open_state(repository, revision))
    assert graph.runs.keys() == {"count", "deep/dvc.yaml:after", "raw.csv.dvc"}
    for target in ("count.json", "team/one/count.json", "count"):
        known = steps(trace(repository, target, revision))
        assert known.keys() == {"raw.csv.dvc", "count"}
    roles = {read.file.path: read.role for read in known["count"].inputs}
    assert roles == {
        "team/one/src": Role.CODE,
        "team/one/lib/inner": Role.CODE,
        "team/shared.txt": Role.CODE,
        "team/one/raw.csv": Role.ARTIFACT,
    }
    assert [p.file for p in known["count"].parameters] == ["team/one/params.yaml"]
    assert known["count"].recorded is not None
    assert trace(repository, "deep/dvc.yaml:after", revision).steps[-1].outputs[0].path == "team/one/deep/after.json"
    assert graph_of(monorepo.parents[1] / "two", revision).runs.keys() == {"count"}


def test_before_the_first_commit_nothing_is_recorded_and_nothing_pinned(without_commits: Path) -> None:
    traced = trace(Repository(without_commits), "out.txt")
    (step,) = traced.steps
    assert (traced.commit, step.recorded, traced.gaps) == (None, None, ())
    assert [read.role for read in step.inputs] == [Role.UNPINNED]
    with pytest.raises(AuditError, match="names no revision"):
        trace(Repository(without_commits), "out.txt", "HEAD")


def test_a_shallow_clone_without_cache_says_what_it_cannot_know(shallow: Path, broad: Path) -> None:
    traced = trace(Repository(shallow), "metrics.json:bytes")
    assert [gap.where for gap in traced.gaps] == ["git", "models/1-a/weights.txt"]  # is it what fit@1-a made there?
    assert {step.recorded for step in traced.steps} == {None}
    whole = trace(Repository(broad), "metrics.json:bytes")
    assert traced.target == whole.target
    assert [step.inputs for step in traced.steps] == [step.inputs for step in whole.steps]
    with pytest.raises(Missing, match="dvc pull"):
        trace(Repository(shallow), "cached.json:half")


@pytest.mark.parametrize(
    "bytes_are", ["<<<<<<< ", "stages:\n", "prepare:\n  deps: []\n", "schema: '3.0'\nstages: {}\n"]
)
def test_a_lock_that_cannot_be_read_is_a_gap_and_the_others_are_read(
    broad: Path, tmp_path: Path, bytes_are: str
) -> None:
    root = copied(broad, tmp_path)
    lock = root / "dvc.lock"
    if bytes_are == "<<<<<<< ":
        conflicted(lock, "summary")
        assert b"\n<<<<<<< HEAD\n" in lock.read_bytes()
    else:
        lock.write_text(bytes_are)
    graph = graph_of(root)
    assert [gap.where for gap in graph.gaps] == ["dvc.lock"]
    assert {run.name for run in graph.stages()} == {"sub/dvc.yaml:train", "sub/dvc.yaml:report"}
    traced = trace(Repository(root), "sub/report.txt")
    assert traced.gaps == tuple(graph.gaps)
    assert graph_of(root, "HEAD").gaps == []


def test_a_wdir_whose_variables_are_gone_is_a_gap(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    (root / "vars.yaml").unlink()
    assert [gap.where for gap in graph_of(root).gaps] == ["dvc.yaml"]


def test_hashes_of_dvc_2_are_known_as_such_and_their_bytes_are_found(legacy: Path) -> None:
    graph = graph_of(legacy)
    assert graph.gaps == []
    files = [*graph.runs["copy"].inputs, *graph.runs["copy"].outputs, *graph.runs["folder.dvc"].outputs]
    assert {file.algorithm for file in files} == {"md5-dos2unix"}
    contents = Contents(graph.state)
    (text,), (folder,) = graph.runs["copy"].outputs, graph.runs["folder.dvc"].outputs
    assert contents.object(text.hash or "", text.algorithm).path.read_bytes() == b"1\r\n2\r\n"
    listing = contents.listing(folder)
    assert listing is not None and listing.keys() == {"inner.txt"}


def test_an_import_from_a_database_is_a_source_that_nothing_pins() -> None:
    text = b"""
frozen: true
deps:
- db: {connection: warehouse, table: sales, file_format: csv}
outs:
- {md5: b96a10c8ee1cb4e3c92567f88ccfa0b7, size: 9, hash: md5, path: sales.csv}
"""
    made = data_run(text, "data/sales.csv.dvc")
    assert (made.kind, [read.path for read in made.inputs]) == (Kind.IMPORT, ["db://warehouse/sales"])
    (pin,) = pins_of(made, None)
    assert (pin.source, pin.revision, pin.fixed) == ("db://warehouse/sales", None, False)


def test_what_lies_in_a_folder_that_was_added_has_the_folder_as_its_source(broad: Path) -> None:
    traced = trace(Repository(broad), "images/deep/2.txt")
    assert [step.name for step in traced.steps] == ["images.dvc"]
    assert [(output.path, output.files) for output in traced.steps[0].outputs] == [("images", 2)]


def test_what_an_import_was_made_from_can_be_asked_for_by_its_own_name(broad: Path) -> None:
    graph = graph_of(broad)
    (source,) = graph.runs["imported.txt.dvc"].inputs
    found = find_target(source.path, graph, Contents(graph.state))
    assert "://" in source.path and (found.path, found.hash, found.runs) == (source.path, source.hash, ())


# Over all of history


def test_folders_around_outputs_and_files_in_them_are_used(broad: Path) -> None:
    repository = Repository(broad)
    size = used(repository, "models/1-a/weights.txt")
    assert {use.by.run for use in size.uses} == {"summary", "score"}
    assert {use.by.run for use in used(repository, "fit@2-a").uses} == {"fit@2-a", "summary"}
    assert size.gaps == ()


def test_names_from_a_folder_of_the_repository_are_found(monorepo: Path) -> None:
    repository = Repository(monorepo)
    for target in ("raw.csv", "team/one/raw.csv", "params.yaml:rows", "team/one/params.yaml:rows"):
        assert {use.by.run for use in used(repository, target).uses} == {"count", "deep/dvc.yaml:after"}


def test_each_record_is_read_once_with_its_oldest_commit(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    git = pygit2.Repository(str(root))
    before = Ledger(Repository(root))
    for i in range(3):  # commits that change nothing of DVC's, one on no branch
        (root / "README.md").write_text(str(i))
        run(["git", "commit", "--quiet", "--all", f"--message={i}"], root)
    run(["git", "checkout", "--quiet", "--detach"], root)
    run(["git", "branch", "--quiet", "--force", "main", "HEAD~1"], root)
    book = Ledger(Repository(root))
    first = str(git.revparse_single("v1").id)
    assert len(book.entries) == len(before.entries) and {entry.commit for entry in book.entries} == {first}
    known = book.known(book.entries[:1])[book.entries[0]]
    assert (known.commits, known.last.id, known.names) == (5, str(git.head.target), ("main", "v1"))
