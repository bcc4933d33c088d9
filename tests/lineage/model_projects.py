"""DVC projects that make a model: a plain one, and one whose names are as nasty as can be. Knows no audit.

Each is built once (conftest.py) and only read; `projects.copied` gives one to change.
"""

import sys
from pathlib import Path

from tests.lineage.projects import begin, commit, write
from tests.pipeline.clones import run

HUB = "0123456789abcdef0123456789abcdef01234567"
TRAIN = """
import json, pathlib
rows = pathlib.Path("rows.txt").read_text().split()
folder = pathlib.Path("model")
(folder / "deep").mkdir(parents=True)
(folder / "weights.bin").write_bytes(bytes(len(rows)) + b"weights")
(folder / "deep" / "config.json").write_text(json.dumps({"rows": len(rows)}))
"""
SCORE = """
import json, pathlib
size = (pathlib.Path("model") / "weights.bin").stat().st_size
json.dump({"loss": {"mean": size / 8}, "rows": size, "name": "m", "bad": float("nan")}, open("metrics.json", "w"))
"""
PLAIN = {
    "dvc.yaml": """
stages:
  prepare:
    cmd: cp raw/numbers.txt rows.txt
    deps: [raw]
    outs: [rows.txt]
  train:
    cmd: python code/train.py
    deps: [rows.txt, code/train.py, words]
    params: [seed, data, start, big]
    outs: [model]
  score:
    cmd: python score.py
    deps: [model, score.py]
    params: [settings.yaml: [level]]
    metrics: [metrics.json: {cache: false}]
""",
    "code/train.py": TRAIN,
    "score.py": SCORE,
    "params.yaml": f"""seed: 3
big: 12345678901234567890
data:
  hub:
    path: org/words
    revision: {HUB}
start:
  model:
    repo: org/tiny-model
    revision: {HUB}
""",
    "settings.yaml": "level: 0.1\n",
    "requirements.lock": "numpy==2.0.0\npretty-tool[extra]==1.2+cpu ; python_version > '3'\n",
    "raw/numbers.txt": "1 2 3\n",
    "words/a.txt": "a\n",
    "words/deep/b.txt": "b\n",
}


def plain(folder: Path) -> Path:
    """Data, code, parameters, two files of a model, a metric, an environment lock; run and committed."""
    root = folder / "plain"
    write(root, _with_python(PLAIN))
    begin(root)
    run(["dvc", "add", "--quiet", "raw"], root)
    run(["dvc", "repro", "--quiet"], root)
    commit(root, "first")
    return root


FOLDER = "models/größe \"quoted\" 'x' & <b>"
NASTY = {
    "dvc.yaml": """
stages:
  train:
    cmd: python make.py
    deps: [raw data, kept 100%, süß.txt, make.py]
    params: [sätze.yaml: [rate]]
    outs: ['FOLDER']
  score:
    cmd: python score.py
    deps: ['FOLDER', score.py]
    outs: [my metrics.json: {cache: false}]
""".replace("FOLDER", FOLDER.replace("'", "''")),
    "make.py": f"""
import pathlib
folder = pathlib.Path({FOLDER!r})
folder.mkdir(parents=True)
(folder / "a b|c`.bin").write_bytes(pathlib.Path("raw data/ein Häuschen.csv").read_bytes())
""",
    "score.py": """open("my metrics.json", "w").write('{"a | b`": 1}')\n""",
    "sätze.yaml": 'rate: "<script>alert(1)</script> | pipe ` tick"\n',
    "raw data/ein Häuschen.csv": "1\n",
    "kept 100%/~x#y?.txt": "kept\n",
    "requirements.txt": "näive==1.0\n",
}


def nasty(folder: Path) -> Path:
    """Names with spaces, quotes, markup and unicode, a folder as output, an import; never committed."""
    write(folder / "other place", {"süß.txt": "sweet\n"})
    root = folder / "nasty"
    write(root, _with_python(NASTY))
    begin(root)
    run(["dvc", "add", "--quiet", "raw data"], root)
    run(["dvc", "import-url", "--quiet", str(folder / "other place" / "süß.txt"), "süß.txt"], root)
    run(["dvc", "repro", "--quiet"], root)
    return root


def _with_python(files: dict[str, str]) -> dict[str, str]:
    """The same, with this Python in the commands."""
    return {**files, "dvc.yaml": files["dvc.yaml"].replace("python ", f"{sys.executable} ")}
