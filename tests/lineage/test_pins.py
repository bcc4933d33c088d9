"""Which parameters name a source outside the repository, and whether what they say can change."""

from dataclasses import replace

import pytest

from artifacts import manifest as written
from lineage.manifests import Manifest
from lineage.model import Kind, Run
from lineage.pins import Owners, pins_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def run(**parameters: object) -> Run:
    return Run(name="corpus", file="dvc.lock", kind=Kind.STAGE, parameters={"params.yaml": parameters})


@pytest.mark.parametrize(
    ("value", "revision", "fixed"),
    [
        ({"path": "org/data", "revision": COMMIT}, COMMIT, True),
        ({"path": "org/data", "revision": "main"}, "main", False),
        ({"path": "org/data", "revision": None}, None, False),
        ({"repo": "org/model", "revision": COMMIT[:12]}, COMMIT[:12], False),
        ({"package": "sympy", "version": "1.14.0"}, "1.14.0", True),
        ({"package": "sympy", "version": "latest"}, "latest", False),
        ({"url": "https://example.org/a.gz", "sha256": "ab" * 32, "version": "1"}, "ab" * 32, True),
    ],
)
def test_a_name_beside_a_revision_is_a_source(value: dict[str, object], revision: str | None, fixed: bool) -> None:
    (pin,) = pins_of(run(hub=value), None)
    assert (pin.revision, pin.fixed, pin.where, pin.runs) == (revision, fixed, "params.yaml: hub", ("corpus",))


def test_of_several_sources_only_the_chosen_one_is_read() -> None:
    hub, package = {"path": "org/data", "revision": "main"}, {"package": "sympy", "version": "1.14.0"}
    (pin,) = pins_of(run(corpus={"source": "package", "package": package, "hub": hub}), None)
    assert pin.source == "sympy"
    (pin,) = pins_of(run(corpus={"source": "hub", "package": package, "hub": hub}), None)
    assert pin.source == "org/data"


def test_dotted_keys_are_read_as_nested_ones() -> None:
    (pin,) = pins_of(run(**{"data.hub.path": "org/data", "data.hub.revision": COMMIT}), None)
    assert (pin.source, pin.revision, pin.where) == ("org/data", COMMIT, "params.yaml: data.hub")


def test_values_without_a_name_or_a_revision_are_no_sources() -> None:
    assert pins_of(run(training={"name": "adam", "steps": 3}, version="1.0", model={"revision": COMMIT}), None) == []


WRITTEN = written.Manifest(
    stage="corpus",
    params={"corpus.source": "package", "corpus.limit": None},
    inputs={"data/check/valid.json": written.Hash(md5="ab" * 16, size=18)},
    code={"stages/corpus.py": "ef" * 16},
    outputs={"data/corpus/train": written.Hash(md5="01" * 16 + ".dir", size=3)},
    counts={"empty": 0},
    environment=written.Environment(locks={"requirements.lock": "23" * 16}, python="3.11.7", versions={"numpy": "2.4"}),
    sources=[written.Outside(source="sympy", revision="1.14.0", sha256="cd" * 32)],
)


def test_all_that_the_stages_write_into_a_manifest_is_read() -> None:
    said = Manifest.model_validate_json(WRITTEN.text()).model_dump()
    assert {**said, "counts": WRITTEN.counts} == WRITTEN.model_dump()


def test_manifests_and_imports_name_sources_too() -> None:
    (pin,) = pins_of(run(), Manifest.model_validate_json(WRITTEN.text()))
    assert (pin.source, pin.revision, pin.fixed) == ("sympy", "cd" * 32, True)
    origin = {"path": "data/raw.csv", "repo": {"url": "https://example.org/r.git", "rev_lock": COMMIT}}
    (pin,) = pins_of(Run(name="raw.csv.dvc", file="raw.csv.dvc", kind=Kind.IMPORT, origin=origin), None)
    assert (pin.source, pin.revision, pin.fixed) == ("https://example.org/r.git: data/raw.csv", COMMIT, True)


def test_a_run_that_reads_every_parameter_has_only_the_sources_that_nobody_else_has() -> None:
    hub, wheel = {"path": "org/data", "revision": COMMIT}, {"package": "sympy", "version": "1.14.0"}
    check = replace(run(corpus={"hub": hub}, other={"wheel": wheel}, steps=3), name="check")
    corpus = run(corpus={"hub": hub})
    assert [pin.source for pin in Owners([check, corpus]).pins(check, None)] == ["sympy"]
    assert [pin.source for pin in Owners([check, corpus]).pins(corpus, None)] == ["org/data"]
    assert [pin.source for pin in Owners([check]).pins(check, None)] == ["org/data", "sympy"]
