"""MobileNetV2 for 32x32 images: torchvision's network with three of its five halvings left out.

Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, Table 2. There
224x224 images shrink 32-fold; here the first convolution and the sixth stage keep their size, and 32x32 images end at
4x4. The paper does not say how it adapted the network to CIFAR-100.
"""

from __future__ import annotations

from torch import nn

from autoprivacy.data.torchvision_operators import declare_missing_operators

# Table 2: expansion, channels, blocks; the stride of the first block is this project's for 32x32 images.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)


def mobilenet_v2(classes: int) -> nn.Module:
    """Images [N, 3, 32, 32] to logits [N, classes]; 53 linear layers, 589,824 ReLU6s."""
    declare_missing_operators()
    from torchvision.models.mobilenetv2 import MobileNetV2

    network = MobileNetV2(num_classes=classes, inverted_residual_setting=[list(stage) for stage in STAGES])
    network.features[0][0].stride = (1, 1)
    return network
