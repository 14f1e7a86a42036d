"""A task of one's own: `optlang race adamw lion my.opt --task examples/my_task.py`.

Any class with `data`, `model` and `loss` will do. Here a small network learns the flowers of scikit-learn's iris data.
"""

import torch
from sklearn.datasets import load_iris
from torch import Tensor, nn
from torch.nn import functional as F


class Iris:
    """iris flowers (scikit-learn, 150 rows of 4 numbers), an MLP 4-16-3"""

    steps = 200  # optional, like batch_size, accuracy and threads
    batch_size = 30
    threads = 1

    def data(self) -> tuple[Tensor, Tensor]:
        """One entry per example in every tensor; 60 % are trained on, 20 % tune step sizes, 20 % are reported."""
        iris = load_iris()
        return torch.tensor(iris.data, dtype=torch.float32), torch.tensor(iris.target)

    def model(self) -> nn.Module:
        """Called for every run, after torch's random generator was seeded."""
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """One number for a batch of what `data` returned."""
        return F.cross_entropy(model(x), y)

    def accuracy(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The fraction of right answers."""
        return (model(x).argmax(-1) == y).float().mean()
