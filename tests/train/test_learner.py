import torch
from torch import nn

from unposed.train.learner import Learner
from unposed.train.recipe import Optimisation

CPU = torch.device("cpu")


def learner(model: nn.Module, **settings) -> Learner:
    made = Learner(model, Optimisation(learning_rate=0.1, **settings), CPU)
    made.backward(model(torch.ones(1, 3)).sum())
    return made


def test_the_average_follows_without_a_graph_of_its_own():
    model = nn.Linear(3, 2)
    averaged = learner(model, ema=0.5)
    before = model.weight.detach().clone()
    averaged.step(0.5, 100)
    torch.testing.assert_close(averaged.average.weight, (before + model.weight.detach()) / 2)
    assert not averaged.average.weight.requires_grad
    assert averaged.average.weight.grad_fn is None


def test_without_averaging_the_average_is_the_weights():
    model = nn.Linear(3, 2)
    learner(model, ema=0.0).step(0.5, 0)
    made = learner(model, ema=0.0)
    made.step(0.5, 1)
    assert torch.equal(made.average.weight, model.weight)


def test_decay_is_for_matrices_and_a_rate_of_zero_moves_nothing():
    model = nn.Linear(3, 2)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    made = Learner(model, Optimisation(learning_rate=0.1, weight_decay=0.5, warmup=0.5), CPU)
    made.backward(0 * model(torch.ones(1, 3)).sum())
    rate, _ = made.step(0.0, 0)
    assert rate == 0
    assert (model.weight == 1).all()
    made.backward(0 * model(torch.ones(1, 3)).sum())
    made.step(0.5, 1)
    torch.testing.assert_close(model.weight.detach(), torch.full((2, 3), 0.95))
    assert (model.bias == 1).all()
