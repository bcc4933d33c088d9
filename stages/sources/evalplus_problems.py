"""EvalPlus's data sets, read by EvalPlus itself: from its cache, which it fills, or from a file in its format."""

import ast
import zlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from scoring.plain_data import NotPlain
from scoring.problems import Problem
from softmask.errors import InputError, Unavailable
from stages.params.code.problem_sets import EvalPlusDataset, EvalPlusSetParams
from stages.sources.code_problems import WHERE, Draft, How, encoded
from stages.sources.human_eval_wheel import request_of

_NAMES = {EvalPlusDataset.HUMANEVAL: "HUMANEVAL", EvalPlusDataset.MBPP: "MBPP"}


def evalplus_problems(name: str, params: EvalPlusSetParams) -> list[Draft]:
    """The problems of a data set in its order.

    Args:
        name: of the set.

    Raises:
        InputError: the data can't be had, is other data than the pinned one, or a record is damaged.
    """
    where = f"{WHERE}.settings.{name}.evalplus"
    tasks = _read(params, where)
    return [_draft(name, task_id, task, params, where) for task_id, task in tasks.items()]


def _read(params: EvalPlusSetParams, where: str) -> Mapping[str, Mapping[str, Any]]:
    from evalplus.data import humaneval, mbpp  # brings datasets along, which takes a second

    is_humaneval = params.dataset is EvalPlusDataset.HUMANEVAL
    module: ModuleType = humaneval if is_humaneval else mbpp
    version = getattr(module, f"{_NAMES[params.dataset]}_PLUS_VERSION")
    if version != params.version:
        raise InputError(
            f"the installed evalplus has the data's version {version}",
            where=f"{where}.version",
            expected=params.version,
        )
    # its override, which would come from an environment variable that nobody sees in params.yaml
    setattr(module, f"{_NAMES[params.dataset]}_OVERRIDE_PATH", params.file)
    source = params.file or f"EvalPlus's {params.dataset.value} {version}"
    try:
        md5 = humaneval.get_human_eval_plus_hash() if is_humaneval else mbpp.get_mbpp_plus_hash()
        tasks: Mapping[str, Mapping[str, Any]] = (
            humaneval.get_human_eval_plus() if is_humaneval else mbpp.get_mbpp_plus()
        )
    except (OSError, EOFError, zlib.error) as error:  # missing, no gzip file or a damaged one, or no network
        raise Unavailable(
            f"can't be read or fetched: {error}",
            where=f"{where}.file: {source}",
            todo="Check the path, or that github.com can be reached; or take another source, such as wheel",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise InputError(f"not in EvalPlus's format ({error})", where=f"{where}.file: {source}") from None
    if params.md5 not in (None, md5):
        raise InputError(f"the md5 of {source} is {md5}", where=f"{where}.md5", expected=str(params.md5))
    return tasks


def _draft(name: str, task_id: str, task: Mapping[str, Any], params: EvalPlusSetParams, where: str) -> Draft:
    try:
        problem = Problem(
            set=name,
            task_id=task_id,
            kind="code",
            request=_request(task["prompt"], task["entry_point"]),
            **{field: task[field] for field in ("prompt", "entry_point", "canonical_solution", "contract")},
            atol=float(task["atol"]),
            base_input=list(map(encoded, task["base_input"])),
            plus_input=list(map(encoded, task["plus_input"])) if params.plus else [],
        )
    except (ValidationError, NotPlain, SyntaxError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"not in EvalPlus's format ({' '.join(str(error).split())})", where=f"{where}, {task_id}"
        ) from None
    return Draft(problem, How.AS_IS)


def _request(prompt: str, entry_point: str) -> str:
    """The docstring: of the function, or of the module, as MBPP's prompts are."""
    module = ast.get_docstring(ast.parse(f"{prompt}\n    pass\n" if "def " in prompt else prompt))
    return module or request_of(prompt, entry_point)
