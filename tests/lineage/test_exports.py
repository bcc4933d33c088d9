"""Exports are what the official schemas say, the same every time, and what others' libraries read."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import ComponentType
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.serde import Serde
from prov.model import ProvDerivation, ProvDocument
from typer.testing import CliRunner

from lineage.cli import app
from lineage.errors import AuditError
from lineage.export.formats import export
from lineage.export.kinds import Format
from lineage.export.validation import InvalidExport, validate_cyclonedx, validate_openlineage, validate_prov
from lineage.hashing import file_hash
from lineage.repository import Repository
from tests.lineage.model_projects import FOLDER, HUB
from tests.lineage.projects import copied
from tests.pipeline.clones import ROOT, run

AGAIN = """
import sys
from pathlib import Path
from lineage.export.formats import export
from lineage.export.kinds import Format
from lineage.repository import Repository
for format in Format:
    sys.stdout.buffer.write(export(Repository(Path.cwd()), sys.argv[1], format).data)
"""


def made(root: Path, target: str, format: Format) -> bytes:
    return export(Repository(root), target, format).data


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("format", Format)
def test_every_format_is_valid_for_projects_of_all_kinds(
    format: Format, plain: Path, nasty: Path, broad: Path, legacy: Path, without_commits: Path, monorepo: Path
) -> None:
    targets = [(plain, "metrics.json:loss.mean"), (plain, "model"), (nasty, FOLDER), (nasty, "my metrics.json")]
    targets += [(broad, "sub/report.txt"), (broad, "summary"), (broad, "imported.txt"), (legacy, "out.txt")]
    targets += [
        (without_commits, "copy"),
        (monorepo, "team/one/deep/after.json"),
    ]
    for root, target in targets:
        assert made(root, target, format), (root, target)  # an invalid one raises


def test_what_no_run_made_has_no_events(plain: Path) -> None:
    for target in ("words", "score.py"):
        with pytest.raises(AuditError, match="no run made it"):
            made(plain, target, Format.OPENLINEAGE)
        assert made(plain, target, Format.PROV) and made(plain, target, Format.CYCLONEDX)


@pytest.mark.parametrize("name", ["plain", "nasty"])
def test_the_same_record_gives_the_same_bytes_in_another_process_and_place(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(name)
    first = b"".join(made(root, "score", format) for format in Format)
    there = copied(root, tmp_path)
    again = run(
        [sys.executable, "-c", AGAIN, "score"], there, PYTHONHASHSEED="7", PYTHONPATH=str(ROOT), TZ="Asia/Tokyo"
    )
    assert again.encode() == first


def test_openlineage_has_a_start_and_a_complete_for_every_run(plain: Path) -> None:
    found = events(made(plain, "metrics.json", Format.OPENLINEAGE))
    kinds = [(event["job"]["name"], event["eventType"]) for event in found]
    assert kinds == [(n, k) for n in ("raw.dvc", "prepare", "train", "score") for k in ("START", "COMPLETE")]
    start, complete = found[4:6]
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert len({event["run"]["runId"] for event in found}) == 4
    assert {each["name"] for each in complete["inputs"]} == {"rows.txt", "words"}
    assert [each["name"] for each in complete["outputs"]] == ["model"]
    version = complete["outputs"][0]["facets"]["version"]["datasetVersion"]
    assert version.startswith("md5:") and version.endswith(".dir")
    commit = run(["git", "rev-parse", "HEAD"], plain).strip()
    assert complete["job"]["facets"]["sourceCodeLocation"]["version"] == commit
    assert complete["job"]["facets"]["lineage_code"]["files"] == {"code/train.py": file_hash(plain / "code/train.py")}
    parameters = complete["run"]["facets"]["lineage_parameters"]["parameters"]
    assert {"file": "params.yaml", "key": "seed", "value": "3"} in parameters
    assert complete["eventTime"] == Repository(plain).commit(commit).time


def test_openlineage_says_that_a_record_is_in_no_commit(nasty: Path) -> None:
    (event, *_) = events(made(nasty, "score", Format.OPENLINEAGE))
    assert event["eventTime"].startswith("1970-01-01")
    assert event["run"]["facets"]["lineage_record"]["committed"] is False


def test_openlineage_is_read_by_its_own_classes(plain: Path) -> None:
    for event in events(made(plain, "metrics.json", Format.OPENLINEAGE)):
        again = RunEvent(
            eventType=RunState(event["eventType"]),
            eventTime=event["eventTime"],
            producer=event["producer"],
            run=Run(**event["run"]),
            job=Job(**event["job"]),
            inputs=[InputDataset(**each) for each in event["inputs"]],
            outputs=[OutputDataset(**each) for each in event["outputs"]],
        )
        assert Serde.to_dict(again) == event


def test_prov_is_read_by_its_library_with_the_whole_graph(plain: Path, nasty: Path) -> None:
    for root, target, runs in ((plain, "metrics.json", 4), (nasty, "my metrics.json", 4)):
        data = made(root, target, Format.PROV)
        document = ProvDocument.deserialize(content=data.decode())
        assert ProvDocument.deserialize(content=document.serialize()) == document
        written = json.loads(data)
        assert len(written["activity"]) == runs
        derived = {(str(r.args[0]), str(r.args[1])) for r in document.get_records(ProvDerivation)}
        assert derived <= {(a, b) for a in written["entity"] for b in written["entity"]} and derived
    train = json.loads(made(plain, "metrics.json", Format.PROV))
    assert train["activity"]["run:train"]["dvc:command"].endswith("code/train.py")
    assert train["entity"]["file:metrics.json"]["dvc:md5"] == file_hash(plain / "metrics.json")
    assert {"file:model", "file:rows.txt"} in [
        {each["prov:generatedEntity"], each["prov:usedEntity"]} for each in train["wasDerivedFrom"].values()
    ]
    assert train["agent"]["agent:tests"]["dvc:name"] == "tests"


def test_cyclonedx_has_model_data_packages_and_what_was_measured(plain: Path) -> None:
    document = json.loads(made(plain, "model", Format.CYCLONEDX))
    model = document["metadata"]["component"]
    hashes = {part["name"]: {h["alg"]: h["content"] for h in part["hashes"]} for part in model["components"]}
    assert hashes["model/weights.bin"]["SHA-256"] == file_hash(plain / "model/weights.bin", "sha256")
    assert model["type"] == "machine-learning-model"
    purls = {part["purl"] for part in document["components"] if part["type"] == "library"}
    assert purls == {"pkg:pypi/numpy@2.0.0", "pkg:pypi/pretty-tool@1.2%2Bcpu"}
    data = {part["name"]: part.get("version") for part in document["components"] if part["type"] == "data"}
    assert data == {"raw": None, "words": None, "rows.txt": None, "org/words": HUB, "org/tiny-model": HUB}
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [(m["type"], m["value"]) for m in metrics] == [
        ("metrics.json:loss.mean", "1.25"),
        ("metrics.json:rows", "10"),
    ]
    refs = {each["ref"] for each in model["modelCard"]["modelParameters"]["datasets"]}
    assert refs == {part["bom-ref"] for part in document["components"] if part["type"] == "data"}


def test_cyclonedx_is_read_by_its_library(plain: Path, nasty: Path) -> None:
    for root, target in ((plain, "model"), (nasty, FOLDER)):
        document = json.loads(made(root, target, Format.CYCLONEDX))
        bom = Bom.from_json(document)  # type: ignore[attr-defined]  # a decorator adds it
        assert bom.metadata.component.type is ComponentType.MACHINE_LEARNING_MODEL
        assert {c.bom_ref.value for c in bom.components} == {c["bom-ref"] for c in document["components"]}
        assert {c.name for c in bom.metadata.component.components} == {
            c["name"] for c in document["metadata"]["component"]["components"]
        }


def test_a_model_that_is_not_as_recorded_gets_no_bill_of_materials(plain: Path, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    (root / "model/weights.bin").unlink()
    (root / "model/weights.bin").write_bytes(b"other")
    with pytest.raises(AuditError, match=r"model/weights\.bin"):
        made(root, "model", Format.CYCLONEDX)


def test_broken_documents_are_found(plain: Path) -> None:
    event = events(made(plain, "model", Format.OPENLINEAGE))[0]
    for change in ({"eventTime": "yesterday"}, {"run": {"runId": "1"}}, {"producer": "no uri"}, {"eventType": "END"}):
        with pytest.raises(InvalidExport):
            validate_openlineage({**event, **change})
    document = json.loads(made(plain, "model", Format.PROV))
    usage = {"prov:activity": "run:train", "prov:entity": "no uri at all"}
    broken: list[dict[str, Any]] = [{"extra": {}}, {"used": {"a": usage}}, {"used": {"a": {}}}, {"entity": {"a": []}}]
    for wrong in broken:
        with pytest.raises(InvalidExport):
            validate_prov({**document, **wrong})
    bom = json.loads(made(plain, "model", Format.CYCLONEDX))
    broken = [{"serialNumber": "1"}, {"components": [{"type": "data"}]}, {"surprise": 1}]
    for wrong in broken:
        with pytest.raises(InvalidExport, match="CycloneDX"):
            validate_cyclonedx(json.dumps({**bom, **wrong}))
    bom["metadata"]["component"]["modelCard"]["madeUp"] = 1
    with pytest.raises(InvalidExport, match="modelCard"):
        validate_cyclonedx(json.dumps(bom))


def test_the_command_writes_what_the_function_gives(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plain)
    file = tmp_path / "export.json"
    ended = CliRunner().invoke(app, ["export", "model", "--format", "prov", "--rev", "HEAD", "--output", str(file)])
    assert ended.exit_code == 0
    assert file.read_bytes() == export(Repository(plain), "model", Format.PROV, "HEAD").data
