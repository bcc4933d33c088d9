"""DVC projects that are not ours, built with plain DVC and git: all that a dvc.yaml can say, and what goes wrong.

Nothing here knows what is audited. Each is built once (conftest.py) and only read; `copied` gives one to change.
"""

import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.pipeline.clones import run

BROAD = """
vars:
  - vars.yaml
  - home: work
stages:
  prepare:
    cmd: cat raw.csv images/*.txt imported.txt linked.txt > prepared.csv
    deps: [raw.csv, images, imported.txt, linked.txt]
    params:
      - rows
      - config.json: [depth]
      - config.toml: [tool.width]
      - consts.py: [SEED, Model.layers]
    outs: [prepared.csv]
  split:
    foreach: [train, test]
    do:
      wdir: parts/${item}
      cmd: cp ../../prepared.csv rows.csv && echo ${item} >> rows.csv
      deps: [../../prepared.csv]
      outs: [rows.csv]
  fit:
    matrix:
      size: [1, 2]
      kind: [a]
    cmd: mkdir -p models/${key}/more && wc -c < parts/train/rows.csv > models/${key}/weights.txt &&
      echo ${item.size} ${factor} > models/${key}/more/size.txt
    deps: [parts/train/rows.csv]
    params: [vars.yaml: [factor]]
    outs: ["models/${key}"]
  summary:
    wdir: ${home}
    cmd: cat ../models/*/weights.txt > summary.txt
    deps: [../models]
    outs: [summary.txt]
  score:
    cmd: python code/score.py models/1-a/weights.txt
    deps: [code, models/1-a/weights.txt]
    metrics:
      - metrics.json: {cache: false}
      - cached.json
    plots: [curve.csv: {x: step, y: loss}]
  old:
    frozen: true
    cmd: cp raw.csv old.csv
    deps: [raw.csv]
    outs: [old.csv]
  stamp:
    cmd: echo stamp > stamp.txt
    always_changed: true
    outs: [stamp.txt]
  last:
    cmd: cat old.csv stamp.txt sub/inner/model.txt > last.txt
    deps: [old.csv, stamp.txt, sub/inner/model.txt]
    outs: [last.txt: {persist: true}]
"""
SCORE = """
import json, sys
size = int(open(sys.argv[1]).read())
json.dump({"bytes": size}, open("metrics.json", "w"))
json.dump({"half": size / 2}, open("cached.json", "w"))
open("curve.csv", "w").write("step,loss\\n0,1\\n")
"""
SUB = """
stages:
  train:
    wdir: inner
    cmd: cat ../../prepared.csv > model.txt && echo 0.1 >> model.txt
    deps: [../../prepared.csv]
    params: [../params.yaml: [rate]]
    outs: [model.txt]
  report:
    cmd: wc -c < inner/model.txt > report.txt
    deps: [inner/model.txt]
    params: [rate]
    outs: [report.txt]
"""


def broad(folder: Path) -> Path:
    """All kinds of stages, data and parameters in one project, run, committed as `v1` and pushed; then a README.

    Beside it: `source` (another DVC project that it imports from), `elsewhere` (of `import-url`), `remote`.
    """
    _source(folder / "source")
    write(folder, {"elsewhere/linked.txt": "linked\n"})
    root = folder / "broad"
    write(
        root,
        {
            "dvc.yaml": BROAD.replace("${key}", "${item.size}-${item.kind}").replace("python ", f"{sys.executable} "),
            "sub/dvc.yaml": SUB,
            "sub/params.yaml": "rate: 0.1\n",
            "sub/inner/.gitkeep": "",
            "work/.gitkeep": "",
            "parts/train/.gitkeep": "",
            "parts/test/.gitkeep": "",
            "vars.yaml": "factor: 3\n",
            "params.yaml": "rows: 1e3\nunused: no\n",
            "config.json": '{"depth": {"seed": 7, "list": [1, 2]}}',
            "config.toml": "[tool]\nwidth = 2.5\n",
            "consts.py": "SEED = 11\nclass Model:\n    layers = 4\n",
            "code/score.py": SCORE,
            "code/helper.py": "",
            "raw.csv": "1,2\n",
            "images/1.txt": "one\n",
            "images/deep/2.txt": "two\n",
            ".dvcignore": "*.pyc\n",
        },
    )
    begin(root)
    run(["dvc", "remote", "add", "--quiet", "--default", "store", str(folder / "remote")], root)
    run(["dvc", "add", "--quiet", "raw.csv", "images"], root)
    run(["dvc", "import", "--quiet", str(folder / "source"), "data/exported.txt", "--out", "imported.txt"], root)
    run(["dvc", "import-url", "--quiet", str(folder / "elsewhere" / "linked.txt"), "linked.txt"], root)
    frozen = (root / "dvc.yaml").read_text()
    write(root, {"dvc.yaml": frozen.replace("frozen: true", "frozen: false")})
    run(["dvc", "repro", "--quiet", "--all-pipelines"], root)
    write(root, {"dvc.yaml": frozen})
    run(["dvc", "push", "--quiet"], root)
    commit(root, "first")
    run(["git", "tag", "v1"], root)
    write(root, {"README.md": "Nothing was run since v1.\n"})
    commit(root, "second")
    return root


def _source(root: Path) -> None:
    """A project that others import from."""
    write(root, {"data/exported.txt": "exported\n"})
    begin(root)
    run(["dvc", "add", "--quiet", "data/exported.txt"], root)
    commit(root, "exported")


MONOREPO = {
    "README.md": "Two projects.\n",
    "team/one/dvc.yaml": """
stages:
  count:
    cmd: cat src/*.txt ../shared.txt raw.csv | wc -c > count.json
    deps: [src, lib/inner, ../shared.txt, raw.csv]
    params: [rows]
    metrics: [count.json: {cache: false}]
""",
    "team/one/deep/dvc.yaml": """
stages:
  after:
    cmd: cp ../count.json after.json
    deps: [../count.json]
    outs: [after.json]
""",
    "team/one/params.yaml": "rows: 5\n",
    "team/one/raw.csv": "1\n",
    "team/one/.dvcignore": "/src/scratch.txt\n",
    "team/one/src/a.txt": "a\n",
    "team/one/src/scratch.txt": "not read by DVC\n",
    "team/one/lib/.dvcignore": "*.tmp\n!kept.tmp\n",
    "team/one/lib/inner/b.txt": "b\n",
    "team/one/lib/inner/b.tmp": "not read by DVC either\n",
    "team/one/lib/inner/kept.tmp": "kept\n",
    "team/shared.txt": "shared\n",
    "two/dvc.yaml": "stages:\n  count:\n    cmd: echo 2 > two.txt\n    outs: [two.txt]\n",
}


def monorepo(folder: Path) -> Path:
    """Two DVC projects, `team/one` and `two`, in one git repository: the folder of `team/one`."""
    root = folder / "monorepo"
    write(root, MONOREPO)
    run(["git", "init", "--quiet", "--initial-branch=main"], root)
    for project in ("team/one", "two"):
        run(["dvc", "init", "--quiet", "--subdir"], root / project)
    run(["dvc", "add", "--quiet", "raw.csv"], root / "team/one")
    run(["dvc", "repro", "--quiet", "--all-pipelines"], root / "team/one")
    run(["dvc", "repro", "--quiet"], root / "two")
    commit(root, "first")
    return root / "team/one"


SMALL = {
    "dvc.yaml": "stages:\n  copy:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n",
    "in.txt": "1\r\n2\r\n",
}


def without_commits(folder: Path) -> Path:
    """A project that was run and never committed."""
    root = folder / "without_commits"
    write(root, SMALL)
    begin(root)
    run(["dvc", "repro", "--quiet"], root)
    return root


def legacy(folder: Path) -> Path:
    """A project as DVC 2 left it: hashes that take CRLF for LF, no `hash` beside them, the cache in .dvc/cache/xx/."""
    root = folder / "legacy"
    write(root, {**SMALL, "folder/inner.txt": "inner\n", "out.txt": SMALL["in.txt"]})
    begin(root)
    text, inner = (_legacy(root, name) for name in ("out.txt", "folder/inner.txt"))
    listing = f'[{{"md5": "{inner}", "relpath": "inner.txt"}}]'.encode()
    whole = hashlib.md5(listing).hexdigest() + ".dir"
    _cached(root, whole, listing)
    lock = f"""schema: '2.0'
stages:
  copy:
    cmd: cp in.txt out.txt
    deps:
    - path: in.txt
      md5: {text}
      size: 6
    outs:
    - path: out.txt
      md5: {text}
      size: 6
"""
    data = f"outs:\n- md5: {whole}\n  size: 6\n  nfiles: 1\n  path: folder\n"
    write(root, {"dvc.lock": lock, "folder.dvc": data, ".gitignore": "/folder\n/out.txt\n"})
    commit(root, "first")
    return root


def _legacy(root: Path, name: str) -> str:
    data = (root / name).read_bytes()
    digest = hashlib.md5(data.replace(b"\r\n", b"\n")).hexdigest()
    _cached(root, digest, data)
    return digest


def _cached(root: Path, digest: str, data: bytes) -> None:
    place = root / ".dvc" / "cache" / digest[:2] / digest[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def shallow(project: Path, folder: Path) -> Path:
    """A clone of a project without its older commits and without any cache."""
    run(["git", "clone", "--quiet", "--depth=1", f"file://{project}", str(folder / "shallow")], project)
    return folder / "shallow"


def copied(project: Path, folder: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(project, folder / project.name, symlinks=True))


def conflicted(lock: Path, stage: str) -> None:
    """Leave a merge's markers in a dvc.lock, around a stage's command."""
    before, mark, after = lock.read_text().partition(f"  {stage}:\n    cmd: ")
    command, _, rest = after.partition("\n")
    both = f"<<<<<<< HEAD\n    cmd: {command}\n=======\n    cmd: {command} --more\n>>>>>>> other\n"
    lock.write_text(before + mark.removesuffix("    cmd: ") + both + rest)


def begin(root: Path) -> None:
    """A git repository with a DVC project."""
    run(["git", "init", "--quiet", "--initial-branch=main"], root)
    run(["dvc", "init", "--quiet"], root)


def commit(root: Path, message: str) -> None:
    """Commit everything that git doesn't ignore."""
    run(["git", "add", "--all"], root)
    run(["git", "commit", "--quiet", f"--message={message}"], root)


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write text files below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
