"""What the run cost, collected from the comparison and from the manifests of the stages that it doesn't read."""

from collections.abc import Mapping

from reporting.labels import add_costs, model_label
from reporting.schema import Comparison, Cost, CostLine


def cost_lines(comparison: Comparison, judge: Cost, references: Cost, sampling: Mapping[str, Cost]) -> list[CostLine]:
    """Every piece of work that used a model, in the order of the pipeline.

    Args:
        judge, references: of training the judge, and of its work on the real text.
        sampling: model -> of its sampling.
    """
    models = comparison.models
    names = {row.model: model_label(row.arm, row.seed) for row in models}
    lines = [_line("judge", "judge", judge), _line("references", "judge", references)]
    lines += [_line("training", names[row.model], row.training) for row in models]
    lines += [_line("sampling", names[row.model], sampling.get(row.model)) for row in models]
    lines += [_line("perplexity", names[row.model], row.evaluation_cost) for row in models]
    judging = [row.evaluation_cost.judge for row in models if row.evaluation_cost and row.evaluation_cost.judge]
    if judging:
        lines.append(_line("judging samples", "judge", add_costs(judging)))
    return [line for line in lines if not line.cost.is_empty]


def _line(work: str, model: str, cost: Cost | None) -> CostLine:
    return CostLine(work=work, model=model, cost=cost or Cost())
