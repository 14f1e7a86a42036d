"""Tasks for many models at once: every run is what it would be alone, and what it is in torch's own layers."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optlang.race import builtin, names
from optlang.race import command as race_command
from optlang.race.errors import RaceError
from optlang.race.loading import load
from optlang.race.tasks import split
from optlang.search import command as search_command
from optlang.search.batched import layers
from optlang.search.training import planted, workloads
from optlang.search.training.levels import Level
from optlang.search.training.loading import ModuleTask, digest, task, verify
from optlang.search.training.tasks import Task, TaskError, Weight

SIZES = {"cancer-mlp": 2114, "digits-mlp": 4810, "photo-autoencoder": 26960, "digits-cnn": 9978, "chars-mlp": 16194,
         "digits-vit": 18154, "chars-transformer": 83906}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_the_built_in_tasks(name):
    made = task(name)
    if made.__dict__.get("text") is None or not made.text.notes:
        assert sum(math.prod(shape) for shape in made.shapes.values()) == SIZES[name]
    assert "parameters" in type(made).__doc__
    start = made.init([3, 5, 3])
    assert all(torch.equal(p[0], p[2]) for p in start.values())
    assert any(not torch.equal(p[0], p[1]) for p in start.values())
    batch = made.batch([3, 5, 3], 7)
    losses = made.loss(start, batch)
    assert losses.shape == (3,) and losses.isfinite().all()
    alone = made.loss({n: p[1:2] for n, p in start.items()}, tuple(t[1:2] for t in batch))
    torch.testing.assert_close(losses[1:2], alone, atol=1e-5, rtol=1e-5)
    again = made.batch([5], 7)
    assert all(torch.equal(a[0], b[1]) for a, b in zip(again, batch, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(again, made.batch([5], 8), strict=True))


@pytest.mark.parametrize("name", ["cancer-mlp", "digits-cnn", "chars-mlp", "digits-vit"])
def test_a_backward_pass_gives_every_run_its_own_gradient(name):
    made = task(name)
    params = {n: p.double().requires_grad_() for n, p in made.init([0, 1]).items()}
    batch = [t.double() if t.is_floating_point() else t for t in made.batch([0, 1], 1)]
    found = torch.autograd.grad(made.loss(params, batch).sum(), list(params.values()))
    one = {n: p.detach()[1:].requires_grad_() for n, p in params.items()}
    alone = torch.autograd.grad(made.loss(one, [t[1:] for t in batch]).sum(), list(one.values()))
    for a, b in zip(found, alone, strict=True):
        torch.testing.assert_close(a[1:], b, atol=1e-10, rtol=1e-7)
        assert a.count_nonzero()


def test_one_table_has_all_names():
    """And both commands print it; what a search trains under a name that both have stays what stores know it as."""
    assert list(names.RACE) == list(builtin.TASKS)
    assert list(names.SEARCH) == [*workloads.TASKS, *planted.TASKS] and [*workloads.TASKS] == [*SIZES]
    assert {near for _, near in names.SEARCH.values()} <= {"", *names.RACE}
    for name in {**names.SEARCH, **names.RACE}:
        assert f"\n  {name} " in names.table()
    for command in (race_command, search_command):
        assert names.table() in command.ABOUT
    assert isinstance(task("digits-cnn"), workloads.DigitsCNN)


@pytest.mark.parametrize("name", ["tabular", "tabular-diabetes", "photos", "digits", "chars"])
def test_a_search_knows_the_tasks_of_the_race(name):
    made = task(name)
    assert isinstance(made, ModuleTask) and made.about == made.problem.about and made.steps == builtin.TASKS[name].steps
    model = made.problem.model(3)
    alone = made.problem.loss(model, tuple(t[:8] for t in made.split.train)).detach()
    assert made.loss(made.init([3]), tuple(t[None, :8] for t in made.split.train)).item() == pytest.approx(alone.item(), rel=1e-4)


def test_a_race_says_what_a_name_of_a_search_is():
    with pytest.raises(RaceError, match="`cancer-mlp` is a task of `optlang search` alone; `tabular` has the same data. There are digits"):
        load("cancer-mlp")
    with pytest.raises(RaceError, match="`planted-sign` is a task of `optlang search` alone"):
        load("planted-sign")
    with pytest.raises(TaskError, match="did you mean 'tabular'"):
        task("tabullar")


def test_a_task_for_so_many_times_its_steps_is_one_of_its_own():
    short, long = task("cancer-mlp"), task("cancer-mlp:14")
    assert (long.name, long.steps, short.name, short.steps) == ("cancer-mlp:14", 14 * short.steps, "cancer-mlp", 100)
    assert torch.equal(long.init([3])["one.weight"], short.init([3])["one.weight"])
    assert long.longer(1.6).steps == long.steps and short.longer(1.6).steps == 160, "its name says how long it is, on every level"
    assert Level("a", (), factor=1.6).key(long.name) == "cancer-mlp:14 x1"
    again = pickle.loads(pickle.dumps(long))
    assert (again.name, again.steps) == (long.name, long.steps)
    assert digest(long) != digest(short)
    for name, told in (("cancer-mlp:0", "cancer-mlp:2 is trained for twice its 100"), ("cancer:2", "did you mean 'cancer-mlp'"),
                       (f"cancer-mlp:1{'0' * 400}", "for more than 10,000,000 steps"),
                       ("cancer-mlp:100001", "for more than 10,000,000 steps"),
                       ("cancer-mlp:x", "NAME:14 is trained for 14 times its steps")):  # fmt: skip
        with pytest.raises(TaskError, match=told):
            task(name)


def test_batches_of_an_epoch_do_not_repeat_and_epochs_differ():
    made = task("cancer-mlp")
    count = len(made.split.train[0]) // made.batch_size
    epochs = [torch.cat([made.batch([1], e * count + s)[0][0] for s in range(1, count + 1)]) for e in (0, 1)]
    assert len(epochs[0].unique(dim=0)) == count * made.batch_size
    assert not torch.equal(epochs[0], epochs[1])


def test_longer_tasks_and_tasks_of_other_processes():
    longer = task("cancer-mlp").longer(10)
    assert (longer.steps, task("cancer-mlp").steps) == (1000, 100)
    other = pickle.loads(pickle.dumps(longer))
    assert (other.name, other.steps, other.factor) == ("cancer-mlp", 1000, 10)
    assert pickle.loads(pickle.dumps(task("cancer-mlp"))) is task("cancer-mlp")


def test_layers_are_torchs():
    torch.manual_seed(0)
    images, kernel = torch.randn(5, 2, 3, 8, 8), torch.randn(2, 4, 3, 3, 3)
    for stride in (1, 2):
        found = layers.convolution(kernel, images.flatten(1, 2), stride).unflatten(1, (2, 4))
        for run in range(2):
            expected = F.conv2d(images[:, run], kernel[run], stride=stride, padding=1)
            torch.testing.assert_close(found[:, run], expected, atol=1e-5, rtol=1e-5)
    params = {"n.weight": torch.randn(2, 3), "n.bias": torch.randn(2, 3)}
    normed = layers.batch_norm(params, "n", images.flatten(1, 2)).unflatten(1, (2, 3))
    expected = F.batch_norm(images[:, 1], None, None, params["n.weight"][1], params["n.bias"][1], training=True)
    torch.testing.assert_close(normed[:, 1], expected, atol=1e-5, rtol=1e-5)
    table, index = torch.randn(2, 7, 3), torch.randint(7, (2, 4, 5))
    torch.testing.assert_close(layers.embedding(table, index)[1], table[1][index[1]])


def test_a_block_is_a_transformers():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    names = {"norm1": theirs.norm1, "qkv": None, "out": theirs.self_attn.out_proj, "norm2": theirs.norm2,
             "up": theirs.linear1, "down": theirs.linear2}  # fmt: skip
    params = {}
    for name, module in names.items():
        weight, bias = (theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias) if module is None else (module.weight, module.bias)
        params |= {f"b.{name}.weight": weight.detach()[None], f"b.{name}.bias": bias.detach()[None]}
    x = torch.randn(1, 3, 6, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    torch.testing.assert_close(layers.block(params, "b", x, 2, causal=True)[0], theirs(x[0], src_mask=mask), atol=1e-5, rtol=1e-5)


# ----------------------------------------------------------------------------------------------------- users' tasks

OWN = """
import torch
from torch import nn

class Own:
    steps, batch_size = 20, 8

    def data(self):
        x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
        return x, x.sum(1).sign()

    def model(self):
        return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))

    def loss(self, model, x, y):
        return {loss}
"""
GOOD = "((model(x).squeeze(-1) - y) ** 2).mean()"


def own(folder, loss):
    path = folder / "own.py"
    path.write_text(OWN.replace("{loss}", loss))
    return str(path)


def test_a_users_task_runs_in_many_copies(tmp_path):
    made = task(own(tmp_path, GOOD))
    assert (made.steps, made.batch_size) == (20, 8)
    params = made.init([0, 1, 0])
    batch = made.batch([0, 1, 0], 1)
    losses = made.loss(params, batch)
    assert losses[0] == losses[2]
    for run, seed in enumerate([0, 1]):
        model = made.problem.model(seed)
        alone = made.problem.loss(model, tuple(t[run] for t in batch))
        assert alone.item() == pytest.approx(float(losses[run]), rel=1e-5)
    assert made.evaluate(params).shape == (3,)
    assert pickle.loads(pickle.dumps(made)) is made


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("(x ** 2).mean()", "does not depend on the model's parameters"),
        ("model(x).sum() * float('nan')", "nan before the first step"),
        ("model(y).mean()", "RuntimeError"),
        ("nn.functional.dropout(model(x) ** 2, 0.5).mean()", "differs between two evaluations"),
        ("model(x).mean().item() * model(x).mean()", "its loss raises RuntimeError"),
    ],
)
def test_a_users_task_that_cannot_be_trained_on(tmp_path, loss, message):
    with pytest.raises(TaskError, match=message):
        task(own(tmp_path, loss))


class Small(Task):
    name = "small"

    def weights(self):
        return {"w": Weight((3,), 1.0)}

    def parts(self):
        return split(torch.arange(10.0))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda params, batch: torch.zeros(2), "constant"),
        (lambda params, batch: params["w"].sum(1) * 0, "constant"),
        (lambda params, batch: params["w"].sum(1) * math.nan, "is nan before the first step"),
        (lambda params, batch: params["v"], "raises KeyError: 'v'"),
        (lambda params, batch: params["w"].sum(), "one number per run"),
        (lambda params, batch: params["w"].sum(1) * torch.rand(()), "differs"),
    ],
)
def test_losses_that_are_refused(loss, message):
    made = Small()
    made.loss = loss
    with pytest.raises(TaskError, match=message):
        verify(made)


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(TaskError, match=r"no task 'digit-mlp': did you mean 'digits-mlp'\?"):
        task("digit-mlp")
    with pytest.raises(TaskError, match="no such file"):
        task(str(tmp_path / "none.py"))
    with pytest.raises(TaskError, match="no task 'planted-nothing'"):
        task("planted-nothing")
