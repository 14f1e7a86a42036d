"""Training and judging: fair, counted, and nobody's neighbours matter."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optlang.race.tasks import Split
from optlang.rules import Rule
from optlang.search.training.fitness import Baseline, Grid, adamw, baseline, falling, jackknife, point, rate, score, tune
from optlang.search.training.tasks import Task, Weight
from optlang.search.training.trainer import Entry, EntryError, train

SGD, LION, MOMENTUM = (Rule(name).program for name in ("sgd", "lion", "momentum"))


class Bowl(Task):
    """A noisy quadratic whose best step sizes are known."""

    name, steps, batch_size, at_once = "bowl", 40, 4, 8
    steepness = 1.0

    def weights(self):
        return {"w": Weight((4, 2), 1.0, 2.0), "b": Weight((3,), 1.0)}

    def parts(self):
        noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        return Split((noise[:160],), (noise[160:180],), (noise[180:],))

    def loss(self, params, batch):
        bowl = params["w"].square().sum((1, 2)) + (params["b"].unsqueeze(1) - 0.1 * batch[0]).square().sum(2).mean(1)
        return self.steepness * bowl


def start_of(task, seeds):
    return task.evaluate(task.init(seeds)).double().numpy()


# ------------------------------------------------------------------------------------------------------------ trainer


def test_entries_settings_and_seeds_each_get_their_own_training():
    entries = [Entry(SGD, {"lr": [0.01, 0.1, 0.3]}), Entry(MOMENTUM, {"lr": [0.01, 0.03], "momentum": [0.5, 0.9]})]
    sgd, momentum = train(Bowl(), entries, [0, 1, 2], record=[10])
    assert (sgd.losses.shape, momentum.losses.shape) == ((3, 3), (2, 3))
    assert (sgd.steps == 40).all() and np.isfinite(sgd.losses).all()
    assert (sgd.curve[10][:2] > sgd.losses[:2]).all()
    [alone] = train(Bowl(), [Entry(MOMENTUM, {"lr": [0.03], "momentum": [0.9]})], [1])
    assert momentum.losses[1, 1] == pytest.approx(alone.losses[0, 0], rel=1e-5)


def test_step_by_step_by_hand():
    task = Bowl()
    [outcome] = train(task, [Entry(SGD, {"lr": [0.1]})], [7], 5, dtype=torch.float64)
    params = {name: p.double().requires_grad_() for name, p in task.init([7]).items()}
    for step in range(1, 6):
        loss = task.loss(params, [t.double() for t in task.batch([7], step)]).sum()
        grads = torch.autograd.grad(loss, list(params.values()))
        params = {n: (p - 0.1 * g).detach().requires_grad_() for (n, p), g in zip(params.items(), grads, strict=True)}
    assert outcome.losses[0, 0] == pytest.approx(float(task.evaluate(params)), rel=1e-12)


def test_a_falling_step_size():
    task = Bowl()
    task.schedule = "linear"
    assert [task.scale(step, 4) for step in range(1, 5)] == [1, 0.75, 0.5, 0.25]
    [outcome] = train(task, [Entry(SGD, {"lr": [0.1]})], [7], 2, dtype=torch.float64)
    params = task.init([7])
    w = params["w"].double()
    for lr in (0.1, 0.05):
        w = w - lr * 2 * w
    b = params["b"].double()
    for step, lr in ((1, 0.1), (2, 0.05)):
        b = b - lr * 2 * (b - 0.1 * task.batch([7], step)[0].double().mean(1))
    assert outcome.losses[0, 0] == pytest.approx(float(task.evaluate({"w": w, "b": b})), rel=1e-9)


def test_lost_runs_leave_early_and_the_others_do_not_notice():
    rates = [0.1, 1e6, 0.2, 30.0]
    [mixed] = train(Bowl(), [Entry(LION, {"lr": [0.01]}), Entry(SGD, {"lr": rates})], [0, 1])[1:]
    assert np.isfinite(mixed.losses).tolist() == [[True] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert (mixed.steps[1] == 10).all() and (mixed.steps[0] == 40).all()
    assert np.isinf(mixed.losses[1]).all()
    [alone] = train(Bowl(), [Entry(SGD, {"lr": [0.1, 0.2]})], [0, 1])
    np.testing.assert_allclose(mixed.losses[[0, 2]], alone.losses, rtol=1e-5)


def test_a_ceiling_ends_runs_that_no_run_comes_back_from():
    task = Bowl()
    task.ceiling = 1000.0
    [outcome] = train(task, [Entry(SGD, {"lr": [1.3, 0.1]})], [0])
    assert np.isfinite(outcome.losses[:, 0]).tolist() == [False, True]
    assert outcome.steps[0, 0] < 40


def test_rules_that_cannot_be_trained_are_named_before_anything_is_trained():
    entries = [Entry(SGD, {"lr": [0.1]}), Entry(Rule("muon").program, {"lr": [0.1]})]
    with pytest.raises(EntryError, match="needs a matrix") as problem:
        train(Bowl(), entries, [0])
    assert problem.value.index == 1
    with pytest.raises(EntryError, match="gradients at other points"):
        train(Bowl(), [Entry(Rule("sam").program, {"lr": [0.1]})], [0])
    with pytest.raises(EntryError, match="no hyper `speed`"):
        train(Bowl(), [Entry(SGD, {"speed": [0.1]})], [0])


# ------------------------------------------------------------------------------------------------------------- tuning


def test_the_grid_is_extended_at_its_edges_and_refined_around_the_best():
    flat, steep = Bowl(), Bowl()
    flat.steepness, steep.steepness = 1e-3, 1e3
    [far], [near] = tune([SGD], flat, [0], Grid(1e-2, 1.0)), tune([SGD], steep, [0], Grid(1e-2, 1.0))
    assert 100 < rate(far.best) <= 1000 and far.extensions == 2
    assert 1e-4 < rate(near.best) < 1e-3 and near.extensions == 2
    for tuned in (far, near):
        assert {tuned.best - 1, tuned.best + 1} <= set(tuned.losses) or {tuned.best - 2, tuned.best + 2} <= set(tuned.losses)
        assert tuned.runs == len(tuned.losses)
    [bounded] = tune([SGD], flat, [0], Grid(1e-2, 1.0, extensions=0, refined=False))
    assert sorted(bounded.losses) == [-4, -2, 0]


def test_near_a_known_step_size_half_the_runs_do():
    [whole] = tune([SGD], Bowl(), [0])
    for start in (whole.best, whole.best - 5, whole.best + 3):
        [near] = tune([SGD], Bowl(), [0], starts=[start])
        assert near.best == whole.best
        assert {near.best - 1, near.best, near.best + 1} <= set(near.losses), "the best is not at an edge"
        assert near.runs == len(near.losses) == 3 + 2 * near.extensions
    assert tune([SGD], Bowl(), [0], starts=[whole.best])[0].runs == 3


def test_points_are_the_nearest():
    assert [point(rate(number)) for number in range(-12, 7)] == list(range(-12, 7))
    assert point(0.02) == -3


def test_rules_are_tuned_together_as_alone():
    together = tune([SGD, LION], Bowl(), [0, 1])
    for program, one in zip([SGD, LION], together, strict=True):
        [alone] = tune([program], Bowl(), [0, 1])
        assert alone.best == one.best and alone.runs == one.runs
        assert one.steps == alone.steps


def test_every_step_of_every_run_is_counted():
    [tuned] = tune([SGD], Bowl(), [0, 1], Grid(1e-2, 1e6, extensions=0, refined=False))
    assert tuned.runs == 18
    assert tuned.steps < 18 * 40  # the largest step sizes are lost at the first look
    assert tuned.steps % 10 == 0


def test_a_rule_without_a_step_size_is_trained_once():
    [tuned] = tune([Rule("rule Half { w' = w - 0.25*g }").program], Bowl(), [0, 1])
    assert tuned.runs == 2 and tuned.losses[0].mean() < 1


# ------------------------------------------------------------------------------------------------------------ fitness


def made(losses, horizon=100, seeds=(0, 1)):
    marks = (0, 50, 100, 200)
    return Baseline("bowl", horizon, seeds, marks, np.array(losses, float), 0.1, 0, 0)


TWO = [[[4, 4]], [[2, 2]], [[1, 1]], [[0.5, 0.5]]]


@pytest.mark.parametrize(
    ("loss", "fraction"),
    [(4, 0), (5, 0), (3, 0.25), (2, 0.5), (1.5, 0.75), (1, 1), (0.75, 1.5), (0.5, 2), (-3, 3), (math.inf, 0), (math.nan, 0)],
)
def test_fractions_are_read_off_the_curve(loss, fraction):
    assert made(TWO).fraction([loss, loss], (0, 1)) == pytest.approx(fraction)


def test_better_is_higher_even_where_adamw_never_gets_anywhere():
    base = made([[[4, 4]]] * 4)
    found = [base.fraction([loss, loss], (0, 1)) for loss in (5, 4, 3.9, 2, -7)]
    assert found[:2] == [0, 0] and found == sorted(found) and len(set(found)) == 4


def test_the_curve_takes_the_best_step_size_of_each_point_and_never_rises():
    base = made([[[4, 4], [4, 4]], [[2, 2], [3, 3]], [[9, 9], [1, 1]], [[math.inf, 1], [1.5, 1.5]]])
    assert base.curve((0, 1)).tolist() == [4, 2, 1.25, 1.25]
    again = Baseline.from_json(json.loads(json.dumps(base.to_json(), allow_nan=False)))
    assert again.curve((0, 1)).tolist() == [4, 2, 1.25, 1.25]
    with pytest.raises(ValueError, match=r"seeds \[0, 1\], not 5"):
        base.curve((0, 5))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9))
def test_falling_is_the_nearest_that_never_rises(values):
    found = falling(np.array(values))
    assert all(a >= b - 1e-9 for a, b in pairwise(found))
    assert found.sum() == pytest.approx(sum(values), abs=1e-6)
    ordered = np.sort(values)[::-1]
    np.testing.assert_allclose(falling(ordered), ordered)
    assert np.square(found - values).sum() <= np.square(np.mean(values) - values).sum() + 1e-9


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    error = jackknife(lambda kept: float(np.mean(np.array(values)[kept])), len(values))
    assert error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)
    assert math.isnan(jackknife(lambda kept: 0.0, 1))


def test_adamw_is_worth_one_and_what_stands_still_nothing():
    task, seeds = Bowl(), [0, 1, 2]
    task.steps, task.schedule = 12, "linear"
    base = baseline(task, seeds)
    still = Rule("rule Still { hyper lr = 1 in (0, inf) w' = w - 0*lr*g }").program
    tuned = tune([SGD, adamw(), still], task, seeds)
    quick, own, none = (score(one, base, seeds) for one in tuned)
    assert own.fraction == pytest.approx(1)
    assert quick.fraction > 1.2  # a bowl is made for it
    assert none.fraction == 0
    assert quick.error >= 0
    assert all(one.runs % len(seeds) == 0 for one in tuned)
