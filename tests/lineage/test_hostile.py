"""Projects that are made to hurt who audits them: every command ends soon, with 0 to 3 and no traceback, and neither
what lies outside the repository nor a character that steers a terminal is in what it says.

Each attack changes a copy of the simulated project. A dead process or a traceback fails the test, as does a wrong code.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygit2
import pytest
from rich.text import Text

from lineage.cli import main
from lineage.commands.common import Console, escape
from lineage.history import history
from lineage.repository import Repository
from lineage.signing import generate_key
from lineage.used import used
from tests.lineage.simulated import ME, METRICS, PARTS, RAW, REPORT, ROWS, Project
from tests.pipeline.clones import environment

SECRET = "hunter2-4711"
SECRETS = {"secret.yaml": f"token: {SECRET}\n", "secret.json": json.dumps({"token": SECRET, "score": SECRET})}
HASHES = [hashlib.md5(text.encode()).hexdigest() for text in SECRETS.values()]
FORGED = "a\x1b[2Jb\x9b1mc\u202ed\u2066e\x7ff\nforged: all holds\r\x07"
"""A name that clears the screen, turns the line around and begins another."""
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
ROOT = Path(__file__).parents[2]
SECONDS = 10.0
"""Of the processor, in which a command ends; most take less than one."""
Attack = Callable[[Project, Path], object]


def bomb(step: str) -> str:
    """YAML whose aliases stand for 10^12 values."""
    lines = [f"a{i}: &a{i} {step.format(','.join([f'*a{i - 1}'] * 10))}" for i in range(1, 13)]
    return "\n".join([f"a0: &a0 {step.format('') if '<<' not in step else '{k: v}'}", *lines, ""])


def deep(levels: int) -> Any:
    """Mappings in each other."""
    value: Any = 1
    for _ in range(levels):
        value = {"x": value}
    return value


def params(text: str) -> Attack:
    """Another params.yaml."""
    return lambda project, _: project.write("params.yaml", text.encode())


def metrics(text: str) -> Attack:
    """Another metrics.json, committed."""

    def attack(project: Project, _: Path) -> None:
        project.write(METRICS, text.encode())
        project.commit("metrics")

    return attack


def lock(change: Callable[[dict[str, Any]], object]) -> Attack:
    """An edited dvc.lock, committed."""

    def attack(project: Project, _: Path) -> None:
        stages = project.lock()
        change(stages)
        project.write("dvc.lock", json.dumps({"schema": "2.0", "stages": stages}).encode())
        project.commit("lock")

    return attack


def locked(text: str) -> Attack:
    """A dvc.lock of these stages."""
    return lambda project, _: project.write("dvc.lock", f"schema: '2.0'\nstages:\n{text}".encode())


def pipeline(text: str) -> Attack:
    """A dvc.yaml."""
    return lambda project, outside: project.write("dvc.yaml", text.replace("OUTSIDE", str(outside)).encode())


def file(path: str, text: str) -> Attack:
    """One more file."""
    return lambda project, _: project.write(path, text.encode())


def late(project: Project, _: Path) -> None:
    """A commit that is made in a year that no calendar has, in a zone that none has."""
    git = pygit2.Repository(str(project.root))
    head = git.head.peel(pygit2.Commit).read_raw()
    commit = git.write(pygit2.enums.ObjectType.COMMIT, re.sub(rb"> \d+ \+\d+", b"> 10000000000000 +9999", head))
    git.references["refs/heads/main"].set_target(commit)


def page(citation: str) -> Attack:
    """A report that cites something, and is recorded with its bytes."""

    def attack(project: Project, outside: Path) -> None:
        source = citation.replace("OUTSIDE", str(outside))
        data = f'<data data-source="{source}" value="1">{"1" * 50_000}x</data>'.encode()
        project.put("page.html", data, cached=True)
        stages = project.lock()
        stages["report"]["outs"].append(
            {"path": "page.html", "hash": "md5", "md5": hashlib.md5(data).hexdigest(), "size": len(data)}
        )
        project.write_lock(stages)

    return attack


def parameter_file(place: str) -> Attack:
    """A stage that was set by a file outside the repository."""

    def attack(project: Project, outside: Path) -> None:
        path = place.replace("OUTSIDE", str(outside))
        stages = project.lock()
        stages["prepare"]["params"][path] = {"token": "then"}
        project.write_lock(stages)
        text = project.text("dvc.yaml").replace("- source\n", f"- source\n    - {path}: [token]\n")
        project.write("dvc.yaml", text.encode())

    return attack


def link(path: str, target: str = "OUTSIDE/secret.json") -> Attack:
    """A link that leads out of the repository."""

    def attack(project: Project, outside: Path) -> None:
        place = project.root / path
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target.replace("OUTSIDE", str(outside)))

    return attack


def cache_link(project: Project, outside: Path) -> None:
    """Metrics that are neither here nor in git, but for a link in the cache."""
    (out,) = (out for out in project.lock()["evaluate"]["outs"] if out["path"] == METRICS)
    place = project.place(out["md5"])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside / "secret.json")
    (project.root / METRICS).unlink()


def steering(project: Project, _: Path) -> None:
    """Names, keys, values, an author and a subject that steer."""
    stages = project.lock()
    entry = stages["prepare"]
    entry["cmd"] = FORGED
    entry["deps"].append({"path": FORGED, "hash": "md5", "md5": "0" * 32, "size": 1})
    entry["params"]["params.yaml"][FORGED] = {FORGED: FORGED}
    stages[FORGED] = {"cmd": FORGED, "outs": [{"path": f"out {FORGED}", "hash": "md5", "md5": "1" * 32, "size": 1}]}
    stages["evaluate"]["deps"].append({"path": f"out {FORGED}", "hash": "md5", "md5": "2" * 32, "size": 1})
    project.write("dvc.lock", json.dumps({"schema": "2.0", "stages": stages}).encode())
    project.write("requirements.lock", f"numpy==2.0{FORGED}\n".encode())
    project.write(METRICS, json.dumps({"score": FORGED, FORGED: 1}).encode())
    project.commit("steering")
    git = pygit2.Repository(str(project.root))
    name = FORGED.replace("\n", " ")
    author = pygit2.Signature(name, name, 1_700_000_000, 0)
    git.create_commit("HEAD", author, author, FORGED, git.index.write_tree(), [git.head.target])


def folders(levels: int, many: str) -> Attack:
    """A branch of folders in each other, with a file of DVC's in the innermost; git has each of them once."""

    def attack(project: Project, _: Path) -> None:
        git = pygit2.Repository(str(project.root))
        found, mode = git.create_blob(b"outs: []"), 0o100644
        for name in ("x.dvc", *["d"] * levels):
            tree = git.TreeBuilder()
            for each in many if name == "d" else ("",):
                tree.insert(f"{each}{name}", found, mode)
            found, mode = tree.write(), 0o040000
        git.create_commit("refs/heads/deep", ME, ME, "deep", found, [])

    return attack


def chain(project: Project, _: Path) -> None:
    """5,000 stages, each of which reads what the one before made."""
    names = [f"{i:032x}" for i in range(1, 5002)]
    stages = {
        f"s{i}": {
            "cmd": f"make {i}",
            "deps": [{"path": f"o{i}", "hash": "md5", "md5": names[i], "size": 1}],
            "outs": [{"path": f"o{i + 1}", "hash": "md5", "md5": names[i + 1], "size": 1}],
        }
        for i in range(5000)
    }
    stages |= project.lock()
    stages["evaluate"]["deps"].append({"path": "o5000", "hash": "md5", "md5": names[5000], "size": 1})
    project.write_lock(stages)
    project.commit("chain")


def crowd(project: Project, _: Path) -> None:
    """5,000 runs of a matrix that make one folder."""
    whole = project.text("dvc.yaml") + "  many:\n    foreach: [1]\n    do:\n      cmd: make\n"
    project.write("dvc.yaml", whole.encode())
    out = {"path": "crowd", "hash": "md5", "md5": "0" * 32 + ".dir", "size": 1, "nfiles": 1}
    stages = {f"many@{i}": {"cmd": "make", "outs": [out]} for i in range(5000)}
    project.write_lock({**project.lock(), **stages})
    project.commit("crowd")


DEEP = deep(400)
ATTACKS: dict[str, tuple[Attack, str]] = {
    "a number of 5,000 digits": (params(f"x: {'9' * 5000}\n"), "params.yaml\n  .*larger than any"),
    "one in metrics": (metrics(f'{{"score": {"9" * 5000}}}'), ""),
    "one that no float holds": (metrics(f'{{"score": {"9" * 4000}}}'), ""),
    "one in hexadecimal": (params(f"x: 0x{'f' * 5000}\n"), "larger than any"),
    "one in the lock": (lock(lambda s: s["prepare"]["params"].update({"params.yaml": {"x": 10**4000}})), "dvc.lock"),
    "50,000 brackets in params": (params("x: " + "[" * 50_000), "nested more than"),
    "in dvc.yaml": (pipeline("stages: " + "[" * 50_000), "nested more than"),
    "in the lock": (locked("  prepare:\n    cmd: " + "[" * 50_000), "dvc.lock\n  .*nested more than"),
    "in metrics": (metrics("[" * 50_000 + "]" * 50_000), ""),
    "in a .dvc file": (file(f"{RAW}.dvc", "- " * 50_000), "nested more than"),
    "in a manifest": (file("meta/prepare/manifest.json", "[" * 50_000), ""),
    "braces": (params("{a: " * 50_000), "nested more than"),
    "aliases of aliases in params": (params(bomb("[{}]")), "aliases make more"),
    "of mappings": (params(bomb("{{<<: [{}]}}")), "aliases make more"),
    "in a lock": (locked("".join(f"  {line}\n" for line in bomb("[{}]").splitlines())), "dvc.lock"),
    "chained by aliases": (
        params("\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 400))])),
        "",
    ),
    "an alias of itself": (params("a: &a [*a]\n"), "holds itself"),
    "a million parameters": (params("x:\n" + "- a\n" * 1_000_000), "read of no more than"),
    "a key of 20,000 dots": (
        lambda project, _: project.replace(
            "dvc.lock", "      params.yaml:\n", f"      params.yaml:\n        ? {'a.' * 20_000}b\n        : 1\n"
        ),
        "",
    ),
    "parameters 400 deep": (params(json.dumps({"train": DEEP})), "nested more than"),
    "400 deep in the lock": (lock(lambda s: s["prepare"]["params"].update({"params.yaml": DEEP})), "nested more than"),
    "400 deep in metrics": (metrics(json.dumps({"score": DEEP})), ""),
    "after the year 9999": (late, "no calendar has its time"),
    "a revision of digits only": (
        file(
            "x.dvc",
            f"deps:\n- path: x\n  repo: {{url: u, rev_lock: {'1' * 40}}}\nouts:\n- {{md5: {'a' * 32}, path: x}}\n",
        ),
        "",
    ),
    "a matrix of 10^12 stages": (
        pipeline(f"stages:\n  a:\n    matrix: {json.dumps({k: [*range(100)] for k in 'abcdef'})}\n    cmd: x\n"),
        "1000000000000 stages",
    ),
    "a path that none can be": (lock(lambda s: s["prepare"]["deps"].append({"path": "a\0b", "md5": "0" * 32})), ""),
    "one that is too long": (lock(lambda s: s["prepare"]["outs"].append({"path": "a" * 999, "md5": "0" * 32})), ""),
    "a size that is none": (lock(lambda s: s["prepare"]["outs"][0].update(size="much")), "dvc.lock"),
    "a command that is none": (lock(lambda s: s["prepare"].update(cmd=[1, None, {"a": 2}])), ""),
    "names that are none": (locked("  1:\n    cmd: x\n"), "dvc.lock"),
    "parameters that are none": (lock(lambda s: s["prepare"].update(params={"params.yaml": [1]})), "dvc.lock"),
    "a stage that is there twice": (
        lambda project, _: project.write(
            "dvc.lock", project.text("dvc.lock").encode() + b"  split:\n    cmd: another\n"
        ),
        "'split' is there twice",
    ),
    "bytes that are no text": (lambda project, _: project.write("dvc.yaml", b"stages: \xff\xfe"), "no text"),
    "what isn't JSON": (params("x: !!binary aGVsbG8=\n"), "binary"),
    "a command of dashes": (lock(lambda s: s["prepare"].update(cmd="-" * 100_000)), ""),
    "packages of brackets": (file("requirements.lock", "a[\n" * 50_000), ""),
    "a page that cites endless digits": (page(f"{METRICS}:score"), ""),
    "templates without end": (pipeline("vars: [a: b]\nstages:\n  a:\n    cmd: " + "${" * 50_000), ""),
    "templates of a large variable": (
        pipeline(f"vars: [a: {'x' * 500_000}]\nstages:\n  a:\n    cmd: {'${a}' * 1000}\n"),
        "may come to more than",
    ),
    "parameters by an absolute path": (parameter_file("OUTSIDE/secret.yaml"), "lies outside the repository"),
    "by dots": (parameter_file("../outside/secret.yaml"), "lies outside the repository"),
    "parameters behind a link": (link("params.yaml", "OUTSIDE/secret.yaml"), "lies outside the repository"),
    "a pipeline behind one": (link("dvc.yaml", "OUTSIDE/secret.yaml"), ""),
    "a lock behind one": (link("dvc.lock", "OUTSIDE/secret.yaml"), ""),
    "variables": (
        pipeline("vars: [OUTSIDE/secret.yaml]\nstages:\n  prepare:\n    cmd: ${token}\n"),
        "lies outside the repository",
    ),
    "variables by dots": (
        pipeline("stages:\n  prepare:\n    vars: [../outside/secret.yaml]\n    cmd: ${token}\n"),
        "lies outside the repository",
    ),
    "variables of a folder outside": (
        pipeline("stages:\n  prepare:\n    wdir: ../outside\n    vars: [secret.yaml]\n    cmd: ${token}\n"),
        "lies outside the repository",
    ),
    "metrics behind a link": (link(METRICS), "lies outside"),
    "an output behind one": (link(ROWS), "lies outside"),
    "code behind one": (link("code/prepare.py"), "lies outside"),
    "a file of a folder": (link(f"{PARTS}/a.txt"), ""),
    "a whole folder": (link("data", "OUTSIDE"), ""),
    "an object of the cache": (cache_link, ""),
    "a page that cites a file outside": (page("OUTSIDE/secret.json:token"), ""),
    "a page that cites what is above": (page("../outside/secret.json:token"), ""),
    "3,000 folders in each other": (folders(3000, "a"), "nested deeper"),
    "10^12 folders": (folders(12, "abcdefghij"), "more than 100,000 files"),
    "5,000 stages that make one thing": (crowd, ""),
    "names that steer": (steering, "forged"),
}
COMMANDS = {
    "verify": ("verify",),
    "of a commit": ("verify", "HEAD"),
    "trace": ("trace", f"{METRICS}:score", "--full"),
    "as JSON": ("trace", REPORT, "--json"),
    "diff": ("diff", "HEAD"),
    "history": ("history", f"{METRICS}:score"),
}
MORE = {
    "of the token": ("trace", f"{METRICS}:token"),
    "verify as JSON": ("verify", "--json"),
    "diff as JSON": ("diff", "HEAD~1", "HEAD", "--json"),
    "as a flowchart": ("trace", METRICS, "--mermaid"),
    "as a page": ("trace", METRICS, "--html", "../page.html"),
    "a card": ("card", METRICS, "--output", "../card.md"),
    **{f"as {form}": ("export", METRICS, "--format", form) for form in ("openlineage", "prov", "cyclonedx")},
    "cited": ("cited", "page.html", "--html", "../cited.html"),
    "attest": ("attest", METRICS, "--key", "../key"),
    "keep": ("keep", "../kept"),
    "rederive": ("rederive", METRICS),
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's beside the project."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name, text in SECRETS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def attacked(request: pytest.FixtureRequest, simulated: Project, outside: Path) -> Project:
    """The project, changed by the attack that a test names."""
    project = simulated.copied(outside.parent / "project")
    ATTACKS[request.param][0](project, outside)
    return project


def said(
    project: Project,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float = SECONDS,
) -> tuple[int, str]:
    """Exit code of a command and all that it said and wrote, which it did in time and without what may not be there."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "argv", ["dvc-lineage", *arguments])
    before = time.process_time()  # other work doesn't count
    with pytest.raises(SystemExit) as ended:
        main()
    taken, captured = time.process_time() - before, capsys.readouterr()
    written = [file for file in project.root.parent.glob("*.*") if file.is_file()]
    text = "\n".join([captured.out, captured.err, *(file.read_text() for file in written if file.suffix != ".html")])
    assert taken < seconds, f"{arguments} took {taken:.1f} seconds"
    assert "Traceback" not in text and "mistake in lineage" not in text, f"{arguments}: {text[-600:]}"
    assert ended.value.code in (0, 1, 2, 3)
    assert STEERING.search(text) is None, f"{arguments}: {STEERING.search(text)}"
    pages = [file.read_text() for file in written if file.suffix == ".html"]
    assert not any(STEERING.search(page.partition("<script")[0].replace("\t", "")) for page in pages)
    for page in (text, *pages):
        assert not [line for line in page.splitlines() if line.strip().startswith("forged:")], arguments
        assert SECRET not in page and not any(digest in page for digest in HASHES), arguments
    return ended.value.code, text


@pytest.mark.parametrize("attacked", ATTACKS, indirect=True)
def test_every_answer_is_soon_clear_and_harmless(
    attacked: Project,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = ATTACKS[request.node.callspec.params["attacked"]][1]
    answers = {name: said(attacked, command, monkeypatch, capsys) for name, command in COMMANDS.items()}
    assert re.search(expected, "\n".join(text for _, text in answers.values()))


@pytest.mark.slow
@pytest.mark.parametrize("attacked", ATTACKS, indirect=True)
def test_so_is_every_other_command(
    attacked: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate_key(attacked.root.parent / "key")
    for command in MORE.values():
        code, _ = said(attacked, command, monkeypatch, capsys)
        assert code != 0 or command[0] != "rederive"  # nobody is there to be asked


@pytest.mark.slow
def test_a_chain_of_5000_stages_is_read_in_seconds(
    simulated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = simulated.copied(tmp_path / "project")
    chain(project, tmp_path)
    for command in COMMANDS.values():
        code, text = said(project, command, monkeypatch, capsys, seconds=30)
        assert code in (0, 1, 3) and text


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """All files and folders but git's, with times and sizes."""
    found = {p.relative_to(folder).as_posix(): p.lstat() for p in folder.rglob("*")}
    return {path: (s.st_mtime_ns, s.st_size) for path, s in found.items() if not path.startswith(".git/")}


@pytest.mark.parametrize(("levels", "many"), [(3000, "a"), (12, "abcdefghij")])
def test_a_commit_of_folders_without_end_is_a_gap_beside_the_others(
    simulated: Project, tmp_path: Path, levels: int, many: str
) -> None:
    project = simulated.copied(tmp_path / "project")
    folders(levels, many)(project, tmp_path)
    repository = Repository(project.root)
    for found in (history(repository, f"{METRICS}:score"), used(repository, RAW)):
        assert len(found.gaps) == 1
    assert len(history(repository, f"{METRICS}:score").rows) == 1 and used(repository, RAW).uses


@pytest.mark.parametrize("commits", ["none", "one with a queue"])
def test_nothing_is_written(
    simulated: Project, outside: Path, commits: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, messages = simulated.copied(outside.parent / "project"), ".dvc/tmp/exps/celery/broker/in"
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    project.write(".dvc/config", f"[core]\n    site_cache_dir = {outside}/site\n".encode())
    git = pygit2.Repository(str(project.root))
    if commits == "none":
        shutil.rmtree(project.root / ".git")
        pygit2.init_repository(str(project.root))
        link(".dvc/tmp", "OUTSIDE")(project, outside)
    else:
        git.references.create("refs/exps/celery/stash", git.head.target)
        for name, text in {
            "pickle": '{"body": "gASVAAAAAAAA", "content-type": "pickle"}',
            "deep": "[" * 50_000,
        }.items():
            project.write(f"{messages}/{name}.msg", text.encode())
        link(f"{messages}/out.msg")(project, outside)
    before = listing(outside.parent)
    for command in (*COMMANDS.values(), ("verify", "nosuch")):
        said(project, command, monkeypatch, capsys)
    assert listing(outside.parent) == before


def test_styles_are_all_that_steers_a_terminal() -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, color_system="standard", width=500)
    console.print(f"[red]{escape(FORGED)}[/] {FORGED}")
    console.print(Text(FORGED))
    text = re.sub(r"\x1b\[\d+(;\d+)*m", "", terminal.getvalue())
    assert "\x1b" in terminal.getvalue() and STEERING.search(text) is None
    assert text.startswith(r"a\u001b[2Jb\u009b1mc\u202ed\u2066e\u007ff\nforged: all holds\r\u0007 a\u001b[2J")


def test_only_one_place_prints() -> None:
    printing = re.compile(r"typer\.s?echo|sys\.stdout|(?<![.\w])print\(|rich\.(console|markup)")
    commands = (ROOT / "lineage/commands").glob("*.py")
    assert [file.name for file in commands if printing.search(file.read_text())] == ["common.py"]


@pytest.mark.slow
def test_no_module_of_a_project_is_imported(simulated: Project, tmp_path: Path) -> None:
    project = simulated.copied(tmp_path / "project")
    names = {name.partition(".")[0] for name in [*sys.modules, *sys.stdlib_module_names]}
    for name in {*names, "celeryconfig", "sitecustomize", "usercustomize", "lineage"}:
        project.write(f"{name}.py", b"import os\nopen('imported', 'w').close()\nos._exit(0)\n")
    script = tmp_path / "bin" / "dvc-lineage"
    script.parent.mkdir()
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        script.name
    ].partition(":")
    script.write_text(  # as pip writes it
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nif __name__ == '__main__':\n"
        f"    sys.exit({function}())\n"
    )
    script.chmod(0o755)
    variables = {**environment(), "PYTHONPATH": str(ROOT)}
    for command, folder in (("verify", project.root), (f"-C {project.root} verify", tmp_path)):
        done = subprocess.run([script, *command.split()], cwd=folder, env=variables, capture_output=True, text=True)
        assert (done.returncode, "holds" in done.stdout) == (0, True), done.stderr
    assert not (project.root / "imported").exists() and not (tmp_path / "imported").exists()
