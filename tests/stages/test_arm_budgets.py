"""How many steps an arm gets, so that what it spends is what its budget says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.section import validate
from softmask.errors import InputError
from stages.params.arms import ArmParams, Budget

SOFT_MASK = {
    **{"kind": "top_k", "k": 3, "interpolation": "linear", "omega_s": 0.5, "omega_a": 3.0, "omega_b": -1.5},
    **{"temperature": 1.0, "omega_learning_rate": 0.01},
}


def arm(budget: Budget, p_sm: float | None) -> ArmParams:
    soft_mask = None if p_sm is None else {"p_sm": p_sm, **SOFT_MASK}
    return validate(ArmParams, {"budget": budget, "soft_mask": soft_mask}, "params.yaml")


@given(steps=st.integers(100, 10**6), p_sm=st.floats(0, 1), backward=st.sampled_from([1, 2, 3]))
def test_equal_budgets_spend_the_same(steps: int, p_sm: float, backward: int) -> None:
    forwards = arm(Budget.EXPECTED_FORWARDS, p_sm).steps(steps, backward) * (1 + p_sm)
    flops = arm(Budget.EXPECTED_FLOPS, p_sm).steps(steps, backward) * (1 + p_sm + backward)
    assert forwards == pytest.approx(steps, abs=1)
    assert flops == pytest.approx(steps * (1 + backward), abs=1 + backward)


@pytest.mark.parametrize("budget", [budget for budget in Budget if budget not in (Budget.HALF, Budget.NONE)])
def test_a_binary_arm_has_all_steps_on_every_equal_budget(budget: Budget) -> None:
    assert arm(budget, None).steps(1000, 2) == 1000


def test_half_and_none_are_what_they_say() -> None:
    assert arm(Budget.HALF, 0.8).steps(1000, 2) == 500
    assert arm(Budget.NONE, 0.8).steps(1000, 2) == 0


def test_an_arm_that_is_the_base_is_refused() -> None:
    with pytest.raises(InputError, match="budget 'none' with soft_mask null is the base; expected a soft mask"):
        arm(Budget.NONE, None)
