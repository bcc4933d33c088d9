"""The plan of a whole pipeline: every stage instance of dvc.yaml for these parameters, with what it takes."""

import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from commands.planning import code_study, judging, language
from commands.planning.facts import Facts
from commands.planning.work import Work
from runner.section import lookup
from stages.params.root import RootParams

Estimate = Callable[[Facts, Mapping[str, str]], Work]
ESTIMATES: Mapping[str, Estimate] = {
    "corpus": language.corpus,
    "tokens": language.tokens,
    "judge": language.train_judge,
    "references": judging.judge_references,
    "base": language.base,
    "arm": language.arm,
    "generate": language.generate,
    "evaluate": judging.evaluate_model,
    "instructions": code_study.instructions,
    "chat_tokens": code_study.chat_tokens,
    "dream_base": code_study.dream_base,
    "finetune": code_study.finetune,
    "code_generate": code_study.code_generate,
    "speed": code_study.speed,
}
"""By the module's name."""
WITHOUT_MODEL = (
    *("check", "tokenizer", "compare", "micro", "arithmetic", "problems", "nearest", "chat_tokenizer", "code_score"),
    *("code_compare", "report"),
)
"""Stages with no model and no data of a size to speak of: nothing is planned for them."""


@dataclass(frozen=True)
class Planned:
    """A stage instance: `stage` as dvc.yaml has it, `instance` with its matrix values, and what it takes."""

    stage: str
    instance: str
    work: Work


def planned(pipeline: Mapping[str, Any], raw: Mapping[str, Any], params: RootParams) -> list[Planned]:
    """What each instance takes, in the order of dvc.yaml.

    Args:
        pipeline: the stages of dvc.yaml.
        raw, params: the parameters, as a mapping and validated.

    Raises:
        InputError: a local source of text is missing or damaged.
    """
    facts = Facts(params)
    found = []
    for stage, entry in pipeline.items():
        for item in _items(entry.get("matrix", {}), raw):
            name, axes = _command(entry["cmd"], item)
            work = ESTIMATES[name](facts, axes) if name in ESTIMATES else Work()
            found.append(Planned(stage, stage + ("@" + "-".join(item.values()) if item else ""), work))
    return found


def _items(matrix: Mapping[str, str], raw: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The matrix's combinations, axis -> value; one empty one where there is no matrix."""
    values = [lookup(raw, template.removeprefix("${").removesuffix("}"), "params.yaml") for template in matrix.values()]
    for combination in itertools.product(*values):
        yield dict(zip(matrix, map(str, combination), strict=True))


def _command(command: str, item: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """`python -m stages.arm --arm ${item.arm} ...` -> `arm` and its axes with this combination's values."""
    parts = shlex.split(re.sub(r"\$\{item\.(\w+)\}", lambda match: item[match[1]], command))
    flags = (flag.removeprefix("--") for flag in parts[3::2])
    return parts[2].removeprefix("stages."), dict(zip(flags, parts[4::2], strict=True))
