"""A signed statement holds as long as nothing that it names has changed, and says what did."""

import json
import shutil
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygit2
import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from typer.testing import CliRunner

from lineage import cli
from lineage.attestation import BUILD_TYPE, PREDICATE, attest, check
from lineage.cli import app
from lineage.errors import AuditError, Missing, Wrong
from lineage.hashing import file_hash
from lineage.repository import Repository
from lineage.signing import Forged, generate_key, sign
from tests.lineage.projects import commit, copied, write
from tests.pipeline.clones import run

CLOSURE = [
    "raw/numbers.txt",
    "rows.txt",
    "code/train.py",
    "words/a.txt",
    "words/deep/b.txt",
    "params.yaml",
    "settings.yaml",
    "requirements.lock",
    "model/weights.bin",
    "model/deep/config.json",
    "score.py",
    "metrics.json",
]
"""Every file that `metrics.json` of the plain project comes from, and itself."""


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key, and its public key beside it."""
    file = tmp_path_factory.mktemp("keys") / "signer"
    generate_key(file)
    return file


@pytest.fixture(scope="session")
def signed(plain: Path, key: Path) -> bytes:
    """The plain project's metric, attested."""
    return attest(Repository(plain), "metrics.json:rows", key)


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def said(envelope: bytes) -> dict[str, Any]:
    """What an envelope says."""
    statement: dict[str, Any] = json.loads(b64decode(json.loads(envelope)["payload"]))
    return statement


def flipped(data: bytes) -> bytes:
    """The same with one bit changed in its middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def flip(file: Path) -> None:
    """Change one bit of a file, and nothing in the cache that it may be linked to."""
    data = flipped(file.read_bytes())
    file.unlink()
    file.write_bytes(data)


def edited(envelope: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """An envelope whose statement was changed after it was signed."""
    outer = json.loads(envelope)
    statement = said(envelope)
    change(statement)
    outer["payload"] = b64encode(json.dumps(statement).encode()).decode()
    return json.dumps(outer).encode()


def test_an_attestation_of_what_lies_here_holds(plain: Path, key: Path, signed: bytes) -> None:
    found = check(Repository(plain), signed, public(key))
    assert (found.holds, found.complete, found.files, found.target) == (True, True, len(CLOSURE), "metrics.json:rows")
    assert found.commit == Repository(plain).head()


@pytest.mark.parametrize("path", CLOSURE)
def test_a_file_of_the_closure_that_changed_is_named(
    path: str, plain: Path, key: Path, signed: bytes, tmp_path: Path
) -> None:
    root = copied(plain, tmp_path)
    flip(root / path)
    found = check(Repository(root), signed, public(key))
    assert [differing.path for differing in found.differing] == [path]


def test_the_closure_is_what_is_named(signed: bytes) -> None:
    statement = said(signed)
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    files = [each["name"] for each in dependencies if "sha256" in each.get("digest", {})]
    assert [each["name"] for each in statement["subject"]] == ["metrics.json"]
    assert sorted([*files, "metrics.json"]) == sorted(CLOSURE)


def test_the_statement_is_slsa_provenance_with_hashes_of_the_bytes(plain: Path, signed: bytes) -> None:
    statement = said(signed)
    ParseDict(statement["predicate"], provenance_pb2.Provenance(), ignore_unknown_fields=True)  # the vendor's fields
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", PREDICATE)
    dependencies = {d["name"]: d for d in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    weights, code = dependencies["model/weights.bin"], dependencies["code/train.py"]
    assert weights["digest"]["sha256"] == file_hash(plain / "model/weights.bin", "sha256")
    assert weights["digest"]["md5"] == file_hash(plain / "model/weights.bin")
    assert weights["annotations"]["run"] == "train"
    assert code["digest"]["gitBlob"] == run(["git", "rev-parse", "HEAD:code/train.py"], plain).strip()
    assert dependencies["git"]["digest"] == {"gitCommit": run(["git", "rev-parse", "HEAD"], plain).strip()}
    assert dependencies["org/words"]["annotations"]["fixed"] is True


def test_the_statement_has_commands_parameters_and_seeds_of_every_run(plain: Path, signed: bytes) -> None:
    definition = said(signed)["predicate"]["buildDefinition"]
    runs = definition["externalParameters"]["runs"]
    assert set(runs) == {"raw.dvc", "prepare", "train", "score"}
    assert runs["train"]["parameters"]["params.yaml"]["seed"] == 3
    assert runs["train"]["parameters"]["params.yaml"]["big"] == "12345678901234567890"  # a double can't hold it
    assert definition["internalParameters"]["runs"]["train"]["seeds"] == ["seed = 3"]
    recorded = said(signed)["predicate"]["runDetails"]["metadata"]
    assert recorded["lineage_value"] == 10
    assert recorded["lineage_recordedIn"] == run(["git", "rev-parse", "HEAD"], plain).strip()


def test_the_same_record_gives_the_same_bytes(plain: Path, key: Path, signed: bytes, tmp_path: Path) -> None:
    elsewhere = copied(plain, tmp_path)
    assert attest(Repository(elsewhere), "metrics.json:rows", key) == signed


def test_a_commit_is_attested_and_checked_from_git_and_cache(plain: Path, key: Path, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    for name in ("model", "rows.txt", "raw"):
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    made = attest(Repository(root), "model", key, "HEAD")
    assert [each["name"] for each in said(made)["subject"]] == ["model/deep/config.json", "model/weights.bin"]
    flip(root / "code/train.py")  # the workspace is not asked
    found = check(Repository(root), made, public(key), "HEAD")
    assert found.holds and found.complete


def test_another_revision_with_another_model_does_not_hold(plain: Path, key: Path, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    made = attest(Repository(root), "model", key)
    write(root, {"raw/numbers.txt": "1 2 3 4\n"})
    run(["dvc", "add", "--quiet", "raw"], root)
    run(["dvc", "repro", "--quiet"], root)
    commit(root, "second")
    differing = {each.path for each in check(Repository(root), made, public(key), "HEAD").differing}
    assert differing == {"raw/numbers.txt", "rows.txt", "model/weights.bin", "model/deep/config.json"}
    assert check(Repository(root), made, public(key), "HEAD~1").holds


def test_what_is_nowhere_is_missing_and_not_wrong(plain: Path, key: Path, signed: bytes, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    (root / "rows.txt").unlink()
    shutil.rmtree(root / ".dvc/cache")
    found = check(Repository(root), signed, public(key))
    assert (found.holds, found.missing) == (True, ("rows.txt",))


@pytest.mark.parametrize("name", ["rows.txt", "model/weights.bin", "code/train.py", "words/a.txt"])
def test_bytes_that_are_not_the_records_are_refused(name: str, plain: Path, key: Path, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    flip(root / name)
    with pytest.raises(Wrong, match=name.partition("/a")[0]):
        attest(Repository(root), "metrics.json", key)


def test_missing_bytes_and_changed_parameters_are_refused(plain: Path, key: Path, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("seed: 3", "seed: 4"))
    with pytest.raises(Wrong, match=r"seed is 4, train ran with 3"):
        attest(Repository(root), "model", key)
    run(["git", "checkout", "--quiet", "params.yaml"], root)
    (root / "rows.txt").unlink()
    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(Missing, match=r"rows\.txt.*\n.*dvc pull"):
        attest(Repository(root), "model", key)


@pytest.mark.parametrize(("error", "code"), [(AuditError, 2), (Wrong, 1), (Forged, 1), (Missing, 3)])
def test_a_refusal_ends_with_its_code(
    error: type[AuditError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise error("refused")

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (code, "error: refused\n")


def test_nasty_names_imports_legacy_hashes_and_no_commit(
    nasty: Path, broad: Path, legacy: Path, without_commits: Path, monorepo: Path, key: Path
) -> None:
    projects = [(nasty, "score"), (broad, "sub/report.txt"), (broad, "summary"), (legacy, "out.txt")]
    projects += [(without_commits, "copy"), (monorepo, "team/one/deep/after.json")]
    for root, target in projects:
        repository = Repository(root)
        found = check(repository, attest(repository, target, key), public(key))
        assert found.holds and found.complete and found.files > 1, (root, found)


@pytest.mark.parametrize("part", ["payload", "signatures", "payloadType"])
def test_a_changed_envelope_is_forged(part: str, plain: Path, key: Path, signed: bytes) -> None:
    outer = json.loads(signed)
    if part == "signatures":
        raw = flipped(b64decode(outer["signatures"][0]["sig"]))
        outer["signatures"][0]["sig"] = b64encode(raw).decode()
    elif part == "payload":
        outer["payload"] = b64encode(flipped(b64decode(outer["payload"]))).decode()
    else:
        outer["payloadType"] = "application/json"
    with pytest.raises(Forged, match="signature doesn't hold"):
        check(Repository(plain), json.dumps(outer).encode(), public(key))


def test_an_edited_or_cut_statement_is_forged(plain: Path, key: Path, signed: bytes) -> None:
    repository = Repository(plain)
    with pytest.raises(Forged, match="edited after it was signed"):
        check(repository, edited(signed, lambda s: s["subject"][0].update(name="other")), public(key))
    no_base64 = b'{"payload": "!", "payloadType": "", "signatures": [3]}'
    for bad in (signed[:-20], b"", b"[]", b"[" * 100_000, b'{"payload": 1}', no_base64):
        with pytest.raises(Forged, match="no whole DSSE envelope"):
            check(repository, bad, public(key))


def test_another_key_and_no_key_are_told_apart(plain: Path, key: Path, signed: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other"
    generate_key(other)
    with pytest.raises(Forged, match="has not signed it"):
        check(Repository(plain), signed, public(other))
    with pytest.raises(AuditError, match="no public Ed25519 key"):
        check(Repository(plain), signed, key)
    with pytest.raises(AuditError, match="no private Ed25519 key"):
        attest(Repository(plain), "model", public(key))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v2"), "provenance/v2"),
        (lambda s: s["predicate"]["buildDefinition"].update(buildType="urn:other"), BUILD_TYPE),
        (lambda s: s["subject"][0].update(name="../outside"), "outside"),
        (lambda s: s.pop("subject"), "no in-toto statement"),
        (lambda s: s.update(surprise=1), "no in-toto statement"),
        (lambda s: s["predicate"].pop("runDetails"), "runDetails"),
        (lambda s: s["subject"][0].update(digest={"md5": "0"}), "sha256"),
    ],
)
def test_a_well_signed_statement_of_another_kind_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, plain: Path, key: Path, signed: bytes
) -> None:
    statement = said(signed)
    change(statement)
    with pytest.raises(AuditError, match=message):
        check(Repository(plain), sign(json.dumps(statement).encode(), key), public(key))


def test_commands_and_exit_codes(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied(plain, tmp_path)
    monkeypatch.chdir(root)
    runner = CliRunner()
    key, made = tmp_path / "k", tmp_path / "made.json"
    assert runner.invoke(app, ["keygen", str(key)]).exit_code == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "never written over" in str(runner.invoke(app, ["keygen", str(key)]).exception)
    assert runner.invoke(app, ["attest", "model", "--key", str(key), "--output", str(made)]).exit_code == 0
    assert runner.invoke(app, ["attest", "model", "--key", str(key)]).stdout_bytes == made.read_bytes()
    checking = ["check", str(made), "--key", str(public(key))]
    assert runner.invoke(app, checking).exit_code == 0
    (root / "rows.txt").unlink()
    shutil.rmtree(root / ".dvc/cache")
    assert runner.invoke(app, checking).exit_code == 3
    flip(root / "model/weights.bin")
    ended = runner.invoke(app, checking)
    assert ended.exit_code == 1 and "model/weights.bin: its SHA-256 is" in ended.stdout
    made.write_bytes(flipped(made.read_bytes()))
    assert runner.invoke(app, checking).exit_code == 1


# A file in somebody's hand


@pytest.fixture
def handed(plain: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without any repository, with a model, what it was made from, a statement of the model and its key."""
    folder = tmp_path / "handed"
    shutil.copytree(plain / "model", folder / "downloaded")
    shutil.copy(plain / "rows.txt", folder / "some.txt")
    (folder / "statement.json").write_bytes(attest(Repository(plain), "model", key))
    shutil.copy(public(key), folder / "key.pub")
    monkeypatch.chdir(folder)
    assert pygit2.discover_repository(str(folder)) is None
    return folder


def held(place: str, statement: str = "statement.json") -> tuple[int, str]:
    """What `check PLACE --statement` ends with and prints."""
    found = CliRunner().invoke(app, ["check", place, "--statement", statement, "--key", "key.pub"])
    return found.exit_code, found.stdout


def test_a_file_is_held_against_a_statement_without_any_repository(handed: Path) -> None:
    code, text = held("downloaded/weights.bin")
    assert code == 0 and "model/weights.bin, of model: holds" in text
    assert "raw/numbers.txt, rows.txt, of model: holds" in held("some.txt")[1]
    flip(handed / "downloaded/weights.bin")
    code, text = held("downloaded/weights.bin")
    assert code == 1 and "the statement names no such file" in text
    assert "downloaded/weights.bin, of model: does not hold" in text


def test_a_folder_is_held_against_all_that_was_attested(handed: Path) -> None:
    code, text = held("downloaded")
    assert code == 0 and "model: holds" in text
    (handed / "downloaded/deep/config.json").unlink()
    code, text = held("downloaded")
    assert code == 3 and "deep/config.json: is not here" in text
    (handed / "downloaded/extra.txt").write_text("extra")
    code, text = held("downloaded")
    assert code == 1 and "extra.txt: its SHA-256 is" in text and "no such file was signed" in text
    code, text = held("downloaded/deep")  # a part of it is not it
    assert code == 3


def test_what_no_statement_says_of_a_file_is_refused(handed: Path) -> None:
    shutil.copy(handed / "statement.json", handed / "edited.json")
    (handed / "edited.json").write_bytes(flipped((handed / "edited.json").read_bytes()))
    assert held("downloaded", "edited.json")[0] == 1
    for arguments in (["nowhere"], ["downloaded", "--rev", "HEAD"]):
        command = ["check", *arguments, "--statement", "statement.json", "--key", "key.pub"]
        assert isinstance(CliRunner().invoke(app, command).exception, AuditError)
