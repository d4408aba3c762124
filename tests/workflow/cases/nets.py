"""Networks as tutorials and published repositories write them, which could not be imported once."""

import torch
from torch import nn
from torch.nn import functional as F


class Base(nn.Module):
    """A convolution and a fully connected layer; what is between them is the subclass's."""

    def __init__(self, classes, features=8 * 8 * 8):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(features, classes)

    def body(self, x):
        return F.relu(self.bn(self.conv(x)))


class View(Base):
    """The flatten of most tutorials."""

    def forward(self, x):
        x = F.avg_pool2d(self.body(x), 2)
        return self.fc(x.view(x.size(0), -1))


class ViewShape(Base):
    def forward(self, x):
        x = F.avg_pool2d(self.body(x), 2)
        return self.fc(x.reshape(x.shape[0], -1))


class ViewNumber(Base):
    def forward(self, x):
        x = F.avg_pool2d(self.body(x), 2)
        return self.fc(x.view(-1, 8 * 8 * 8))


class PoolSize(Base):
    """The global pooling of published CIFAR ResNets."""

    def __init__(self, classes):
        super().__init__(classes, 8)

    def forward(self, x):
        x = self.body(x)
        return self.fc(torch.flatten(F.avg_pool2d(x, x.size()[3]), 1))


class FunctionalDropout(Base):
    def forward(self, x):
        x = torch.flatten(F.avg_pool2d(self.body(x), 2), 1)
        return self.fc(F.dropout(x, 0.1, training=self.training))


class Good(Base):
    def forward(self, x):
        return self.fc(torch.flatten(F.avg_pool2d(self.body(x), 2), 1))


view, view_shape, view_number, pool_size = View, ViewShape, ViewNumber, PoolSize
functional_dropout, good = FunctionalDropout, Good
