"""Decide whether a candidate replaces the champion: `python -m commands.promotion --champion DIR --candidate DIR ...`.

A command, no stage of the pipeline: a retrain runs it. Each DIR is the root of a checkout in which the arm has been
trained. Both models are measured as the stage `evaluate` does, on the champion's validation tokens with the same masks;
`retrain.promotion` of params.yaml decides. Run again after an interruption, it goes on where it was.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from artifacts.files import read_tokenizer, write_json
from artifacts.hashing import file_md5, path_hash
from commands.retraining import Decision, Hashes, Measured
from reporting.labels import number
from reporting.params.compare import CompareParams
from reporting.schema import NllPath
from runner.stage import PARAMS_FILE, Context, declared_code, run_command
from runner.store import hold, location
from softmask.backbones.dit import Mdlm, load
from softmask.errors import InputError
from softmask.evaluation.intervals import joint_bootstrap
from softmask.tokens import PackedTokens
from stages import evaluate
from stages.params.retrain import Direction, Metric, PromotionParams, RetrainParams
from stages.shared.compute import set_up
from stages.shared.units import Units

CHAMPION, CANDIDATE, IMPROVEMENT = "champion", "candidate", "improvement"
TOKENS = "tokens"
DIGITS = 4

NllOfUnits = dict[Metric, NDArray[np.float64]]
"""Metric -> `[units]`, summed NLL of each unit, mean over the draws."""


class Params(evaluate.Params):
    """What the decision depends on, beside the models and the data."""

    compare: CompareParams
    retrain: RetrainParams


@dataclass(frozen=True)
class Side:
    """One of the two models, where it was trained."""

    name: str
    tokenizer: Path
    model: Path

    @classmethod
    def of(cls, name: str, root: Path, model: str) -> "Side":
        """The side whose checkout is `root`.

        Raises:
            InputError: there is no such folder, or it lacks the tokenizer or the model.
        """
        if not root.is_dir():
            raise InputError(f"there is no folder {root}", where=f"--{name}", expected="the root of a checkout")
        return cls(name, _made(root, "tokenizer", model), _made(root, "model", model))


def main(
    champion: Annotated[Path, typer.Option(help="Root of the checkout with the model that is in use.")],
    candidate: Annotated[Path, typer.Option(help="Root of the checkout with the model that may replace it.")],
    arm: Annotated[str, typer.Option(help="The arm.")],
    seed: Annotated[int, typer.Option(help="The training seed.", min=0)],
    out: Annotated[Path, typer.Option(help="JSON file for the decision.")],
) -> None:
    """Decide whether the candidate replaces the champion; exit code 0 whatever the decision."""
    decision = decide_between(champion, candidate, arm, seed)
    write_json(out, decision.model_dump(mode="json"))
    console = Console()
    console.print(table(decision))
    console.print("Promote the candidate:" if decision.promoted else "Keep the champion:")
    for reason in decision.reasons:
        console.print(f"- {reason}", highlight=False, soft_wrap=True)


def decide_between(champion: Path, candidate: Path, arm: str, seed: int) -> Decision:
    """Measure both models and decide.

    Args:
        champion: root of the champion's checkout; its validation tokens are the text.
        candidate: root of the candidate's.

    Raises:
        InputError: something is missing or damaged, or models, tokenizers or params.yaml don't fit each other.
    """
    params, name = Params.read({}), f"{arm}-{seed}"
    device = set_up(params.compute)
    sides = (Side.of(CHAMPION, champion, name), Side.of(CANDIDATE, candidate, name))
    folder = _made(champion, "tokens", name)
    _check_tokenizers(*sides)
    tokens = PackedTokens.open(folder)
    models = [load(side.model, device) for side in sides]
    _check_models(sides, models, params.retrain.promotion)
    for model in models:
        model.check_vocabulary(tokens.vocab_size, folder)
    units = Units.of(tokens, read_tokenizer(sides[0].tokenizer), params.evaluation)
    hashes = {side.name: path_hash(side.model)["md5"] for side in sides}
    hashes["validation_tokens"] = path_hash(folder)["md5"]
    with ExitStack() as held:
        contexts = [_context(held, params, side, name, hashes) for side in sides]
        old, new = (_measure(*pair, tokens, units) for pair in zip(contexts, models, strict=True))
        for context in contexts:
            context.checkpoints.clear()
    metrics = compare(old, new, units.tokens, params)
    promoted, reasons = decide(params.retrain.promotion, metrics, len(units.tokens), params.compare)
    return Decision(
        arm=arm,
        seed=seed,
        documents=len(np.unique(tokens.documents_of(units.indices))),
        unit_kind=units.kind,
        units=len(units.tokens),
        metrics=metrics,
        promoted=promoted,
        reasons=reasons,
        hashes=Hashes(**hashes),
    )


def _made(root: Path, name: str, model: str) -> Path:
    """An input of the stage `evaluate` in a checkout."""
    path = root / evaluate.STAGE.inputs[name].format(model=model)
    if not path.exists():
        raise InputError("the input is missing", where=str(path), todo="Make it there first: dvc repro")
    return path


def _check_tokenizers(champion: Side, candidate: Side) -> None:
    if path_hash(candidate.tokenizer) != path_hash(champion.tokenizer):
        raise InputError(
            f"not the champion's tokenizer, which is in {champion.tokenizer}",
            where=str(candidate.tokenizer),
            expected="the same files, without which tokens can't be compared",
        )


def _check_models(sides: tuple[Side, Side], models: list[Mdlm], rules: PromotionParams) -> None:
    kinds = ["no soft mask" if model.soft_mask is None else "a soft mask" for model in models]
    if kinds[0] != kinds[1]:
        what = f"the candidate has {kinds[1]}, the champion {kinds[0]}"
        raise InputError(what, where=str(sides[1].model), expected="two models of one arm")
    if models[0].soft_mask is None and Metric.NLL_WITHOUT_FEEDBACK in rules.metrics:
        what = f"{Metric.NLL_WITHOUT_FEEDBACK.value!r} of a model that has no soft mask"
        raise InputError(what, where=f"{PARAMS_FILE}: retrain.promotion", expected=f"{Metric.NLL} alone")
    for side, model in zip(sides, models, strict=True):
        if not all(bool(torch.isfinite(weights).all()) for weights in model.backbone.parameters()):
            raise InputError("it has weights that are not finite", where=str(side.model), todo="Train it again")


def _context(
    held: ExitStack, params: Params, side: Side, name: str, hashes: Mapping[str, str]
) -> Context[evaluate.Params]:
    """What the stage `evaluate` gets, as far as measuring the NLL needs it; holds its checkpoints."""
    record = {
        "params": params.model_dump(mode="json", include=set(evaluate.Params.model_fields)),
        "inputs": {
            "model": hashes[side.name],
            "tokens": hashes["validation_tokens"],
            "tokenizer": path_hash(side.tokenizer),
        },
        "code": {file: file_md5(Path(file)) for file in declared_code(evaluate.STAGE.name)},
    }
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    checkpoints = held.enter_context(hold(location(), f"promotion-{side.name}@{name}", key))
    return Context(params, {}, {}, {"model": f"{side.name} {name}"}, checkpoints)


def _measure(context: Context[evaluate.Params], model: Mdlm, tokens: PackedTokens, units: Units) -> NllOfUnits:
    nll, _ = evaluate.measure_nll(context, model, tokens, units)
    one_pass = nll[NllPath.BINARY].mean(axis=0)
    if model.soft_mask is None:
        return {Metric.NLL: one_pass}
    return {Metric.NLL: nll[NllPath.TWO_PASS].mean(axis=0), Metric.NLL_WITHOUT_FEEDBACK: one_pass}


def compare(
    champion: NllOfUnits, candidate: NllOfUnits, tokens: NDArray[np.int64], params: Params
) -> dict[Metric, Measured]:
    """Both models' metrics a token, and the paired improvement with its interval, resampled as `compare` does.

    An improvement is a column of its own: that of two models with equal NLLs is exactly 0, resampled or not.
    """
    table = {TOKENS: tokens.astype(np.float64)}
    for metric, nll in champion.items():
        higher = metric is params.retrain.promotion.metric and params.retrain.promotion.direction is Direction.HIGHER
        gain = candidate[metric] - nll if higher else nll - candidate[metric]
        table.update({f"{CHAMPION} {metric}": nll, f"{CANDIDATE} {metric}": candidate[metric]})
        table[f"{IMPROVEMENT} {metric}"] = gain
    resampling = params.compare
    bootstrap = joint_bootstrap(table, resampling.resamples, resampling.level, resampling.seed)
    found = {}
    for metric in champion:
        of = {part: bootstrap.ratio({f"{part} {metric}": 1.0}, TOKENS) for part in (CHAMPION, CANDIDATE, IMPROVEMENT)}
        low, high = of[IMPROVEMENT].low, of[IMPROVEMENT].high
        found[metric] = Measured(**{part: interval.estimate for part, interval in of.items()}, low=low, high=high)
    return found


def decide(
    rules: PromotionParams, metrics: Mapping[Metric, Measured], units: int, resampling: CompareParams
) -> tuple[bool, list[str]]:
    """Whether the candidate is promoted, and why: the conditions that it fails, or what was found, a sentence each.

    Args:
        units: how many the intervals resample; as in `compare`, an interval of fewer than `min_units` says nothing.
    """
    failed = list(_failures(rules, metrics, units, resampling))
    return not failed, failed or list(_findings(rules, metrics, resampling))


def _failures(
    rules: PromotionParams, metrics: Mapping[Metric, Measured], units: int, resampling: CompareParams
) -> Iterator[str]:
    own = metrics[rules.metric]
    if own.improvement < rules.minimum_improvement:
        yield f"{_change(rules.metric, own)}; an improvement of at least {rules.minimum_improvement:g} is asked for."
    if units < resampling.min_units:
        yield f"An interval counts from {resampling.min_units} resampled units on; the text has only {units}."
    elif own.low <= 0:
        yield f"The {_interval(own, resampling)} of the improvement in {rules.metric} does not lie above zero."
    for guard in rules.guards:
        measured = metrics[guard.metric]
        if -measured.improvement > guard.tolerance:
            yield f"{_change(guard.metric, measured)}; at most {guard.tolerance:g} is tolerated."


def _findings(rules: PromotionParams, metrics: Mapping[Metric, Measured], resampling: CompareParams) -> Iterator[str]:
    own = metrics[rules.metric]
    yield f"{_change(rules.metric, own)}; an improvement of at least {rules.minimum_improvement:g} was asked for."
    yield f"The {_interval(own, resampling)} of the improvement in {rules.metric} lies above zero."
    for guard in rules.guards:
        measured = metrics[guard.metric]
        yield f"{_change(guard.metric, measured)}; worse by at most {guard.tolerance:g} was tolerated."


def _change(metric: Metric, measured: Measured) -> str:
    if measured.improvement == 0:
        return f"{metric} is the same"
    what = "better" if measured.improvement > 0 else "worse"
    return f"{metric} is {what} by {number(abs(measured.improvement), DIGITS)} nats a token"


def _interval(measured: Measured, resampling: CompareParams) -> str:
    low, high = number(measured.low, DIGITS, sign=True), number(measured.high, DIGITS, sign=True)
    return f"{100 * resampling.level:g}% interval ({low} to {high})"


def table(decision: Decision) -> Table:
    """Both models' metrics, for the terminal."""
    text = f"{decision.arm}-{decision.seed} on {decision.documents} validation documents, nats a token"
    shown = Table(title=text, title_justify="left", pad_edge=False)  # 80 columns hold it
    shown.add_column("metric")
    for column in Measured.model_fields:
        shown.add_column(column, justify="right")
    for metric, measured in decision.metrics.items():
        values = [number(value, DIGITS, sign=name not in (CHAMPION, CANDIDATE)) for name, value in measured]
        shown.add_row(str(metric), *values)
    return shown


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
