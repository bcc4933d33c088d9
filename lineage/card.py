"""A model card in the Hugging Face hub's format, from the record alone. What the record doesn't say is left out.

The hub's own check of a card needs its server, and is not made.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lineage.closure import is_data, parameter_tree, target_steps
from lineage.contents import at
from lineage.manifests import Environment
from lineage.model import Kind, Pin
from lineage.pins import nested
from lineage.repository import Repository
from lineage.results import Measured, measured
from lineage.text import printable, visible
from lineage.trace import Role, Step, Trace, trace
from lineage.values import shown

TEMPLATE = Path(__file__).parent / "templates" / "card.md"
HUB = re.compile(r"[\w.-]+/[\w.-]+")
FILE_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
MODEL = re.compile(r"(^|[\W_])(model|checkpoint|weights|backbone)s?($|[\W_])")
DATASET = re.compile(r"(^|[\W_])(data|dataset|corpus|corpora)s?($|[\W_])")


class Card(NamedTuple):
    """What is known of a target."""

    text: str
    """Markdown with the hub's metadata before it."""
    complete: bool
    """Whether all that it tells of could be read."""


def card(repository: Repository, target: str, revision: str | None = None) -> Card:
    """The card of a target; the same record gives the same text.

    Args:
        repository: the repository.
        target: an artifact's path, a number (`PATH:KEY`), a stage, or (part of) a hash.
        revision: a commit, branch, tag, experiment; None for the workspace.

    Raises:
        AuditError: the revision or the target isn't there.
    """
    traced = trace(repository, target, revision)
    results = measured(repository, traced)
    made = ModelCard.from_template(_metadata(traced, results), template_path=str(TEMPLATE), **_content(traced, results))
    return Card(visible(str(made)), not traced.gaps and all(each.readable for each in results if each.own))


def _metadata(traced: Trace, results: Iterable[Measured]) -> ModelCardData:
    hub = [pin for pin in traced.pins if _is_hub(pin) and not _only_checked(pin, traced)]
    kinds = {pin: _kind(pin, traced) for pin in hub}
    datasets = [pin.source for pin in hub if kinds[pin] == "dataset"]
    models = [pin.source for pin in hub if kinds[pin] == "model"]
    return ModelCardData(
        model_name=traced.target.path or traced.target.asked,
        datasets=[*dict.fromkeys(datasets)] or None,
        base_model=[*dict.fromkeys(models)] or None,
        eval_results=[_result(each, key, value) for each in results for key, value in each.numbers] or None,
    )


def _result(found: Measured, key: str, value: float) -> EvalResult:
    """A number for the hub, which wants a task and a dataset: the record knows the file that holds it."""
    return EvalResult(
        task_type="other",
        dataset_type=found.path,
        dataset_name=found.path,
        metric_type=key,
        metric_name=f"{found.path}:{key}",
        metric_value=value,
    )


def _is_hub(pin: Pin) -> bool:
    return HUB.fullmatch(pin.source) is not None and not FILE_HASH.fullmatch(pin.revision or "")


def _kind(pin: Pin, traced: Trace) -> str | None:
    """Whether a pin is a `model` or a `dataset`, by the names of and in its parameters; None where they don't say."""
    file, _, key = pin.where.partition(": ")
    beside: Any = None
    for step in traced.steps:
        if step.name in pin.runs and beside is None:
            try:
                beside = at(nested(parameter_tree(step).get(file, {})), key)
            except KeyError:
                continue
    names = {*beside} if isinstance(beside, dict) else set()
    if "split" in names or DATASET.search(key):
        return "dataset"
    return "model" if "model" in names or MODEL.search(key) else None


def _only_checked(pin: Pin, traced: Trace) -> bool:
    """Whether only runs that read all parameters that any other run reads name a pin: they check, and fetch nothing."""
    steps = {step.name: {(p.file, p.key) for p in step.parameters} for step in traced.steps}

    def reads_all(name: str) -> bool:
        others = set().union(*(keys for other, keys in steps.items() if other != name))
        return bool(others) and all(_covered(key, steps[name]) for key in others)

    return all(name not in traced.target.runs and reads_all(name) for name in pin.runs)


def _covered(parameter: tuple[str, str], known: set[tuple[str, str]]) -> bool:
    file, key = parameter
    parts = key.split(".")
    return any((file, ".".join(parts[: i + 1])) in known for i in range(len(parts)))


def _content(traced: Trace, results: list[Measured]) -> dict[str, Any]:
    """What the template shows; all text is escaped for Markdown."""
    target, own = traced.target, target_steps(traced)
    recorded = [step.recorded for step in own if step.recorded is not None]
    return {
        "name": code(target.path or target.asked),
        "hash": code(target.hash) if target.hash is not None else None,
        "value": code(f"{target.key} = {shown(target.value)}") if target.key is not None else None,
        "commit": code(traced.commit.id) if traced.commit is not None else None,
        "in_workspace": traced.revision == "workspace",
        "revision": code(traced.revision),
        "recorded": max((commit.time for commit in recorded), default=None),
        "made_by": [code(step.name) for step in own],
        "outputs": [
            (code(f.path), code(f.hash or "unknown"), f.size) for s in own for f in s.outputs if target.path is None
        ],
        "runs": [_run(step) for step in traced.steps],
        "sources": [*_sources(traced)],
        "pins": [
            (code(p.source), code(p.revision or "none"), p.fixed, code(p.where), _codes(p.runs)) for p in traced.pins
        ],
        "parameters": [*_parameters(traced)],
        "seeds": [(code(step.name), _codes(step.seeds)) for step in traced.steps if step.seeds],
        "environments": [*_environments(traced.steps)],
        "locks": [(code(path), code(blob)) for path, blob in traced.environment.items()],
        "results": [
            (code(f"{r.path}:{key}"), code(json.dumps(value)), code(r.run)) for r in results for key, value in r.numbers
        ],
        "unread": [code(r.path) for r in results if r.own and not r.readable],
        "compared": [(code(r.path), code(r.run)) for r in results if not r.own],
        "gaps": [f"{code(gap.where)}: {code(gap.what)}" for gap in traced.gaps],
        "commands": [*_commands(traced)],
    }


def _run(step: Step) -> tuple[str, str, str, str]:
    command = " && ".join(step.command)
    read = [i.file.path for i in step.inputs if i.role is not Role.CODE]
    kind = {Kind.DATA: "added by a person", Kind.IMPORT: "imported"}.get(step.kind, "unknown")
    return code(step.name), code(command) if command else kind, _codes(read), _codes(f.path for f in step.outputs)


def _sources(traced: Trace) -> Iterator[tuple[str, str, str]]:
    """Raw data: what people added or imported, what git keeps, and what runs read from outside."""
    found: dict[tuple[str, str], str] = {}
    for step in traced.steps:
        if step.kind is not Kind.STAGE:
            found.update({(file.path, file.hash or "unknown"): step.name for file in step.outputs})
        for read in step.inputs:
            if is_data(read) and read.role is not Role.ARTIFACT:
                origin = "git" if read.role is Role.CODE else read.role.value
                found.setdefault((read.file.path, read.file.hash or "unknown"), origin)
    for (path, digest), origin in found.items():
        yield code(path), code(digest), code(origin)


def _parameters(traced: Trace) -> Iterator[tuple[str, str, str]]:
    """The target's own runs' in full, others' in short."""
    for step in traced.steps:
        whole = step.name in traced.target.runs
        for p in step.parameters:
            value = json.dumps(p.value, ensure_ascii=False) if whole else shown(p.value)
            yield code(step.name), code(f"{p.file}: {p.key}"), code(value)


def _environments(steps: Iterable[Step]) -> Iterator[tuple[str, str, str]]:
    """(Runs, Python, packages) of each environment that runs say they were made in."""
    runs: dict[str, list[str]] = {}
    found: dict[str, Environment] = {}
    for step in steps:
        if step.environment is not None:
            key = step.environment.model_dump_json()
            found[key] = step.environment
            runs.setdefault(key, []).append(step.name)
    for key, environment in found.items():
        versions = [f"{name} {version}" for name, version in environment.versions.items()]
        yield _codes(runs[key]), code(environment.python or "unknown"), _codes(versions)


def _commands(traced: Trace) -> Iterator[tuple[str, str]]:
    target = shlex.quote(traced.target.asked)
    commit = traced.commit.id if traced.commit is not None and traced.revision != "workspace" else None
    rev = f" --rev {commit}" if commit else ""
    yield "Show where it came from", f"dvc-lineage trace {target}{rev}"
    yield "Hash everything anew", f"dvc-lineage verify {commit + ' ' if commit else ''}--target {target}"
    yield "Run everything again and compare", f"dvc-lineage rederive {target}{rev}"
    yield "Check a signed statement of it", f"dvc-lineage check ATTESTATION --key SIGNER.pub{rev}"


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(code(text) for text in texts)


def code(text: str) -> str:
    """Any text as code in Markdown, which stays text: in a table's cell too."""
    line = printable(" ".join(text.split()))
    if "\\" in line and "|" in line:  # in a table, no span can hold both
        return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in line)}</code>"
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line.replace('|', chr(92) + '|')}{pad}{fence}"
