"""The paper's networks are what their papers say, and a network of anybody's is found or its absence explained."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprivacy.data.dataset import Dataset, Split
from autoprivacy.errors import UserError
from autoprivacy.networks import build, build_for
from autoprivacy.networks.mobilenet_v2 import mobilenet_v2
from autoprivacy.networks.resnet import BasicBlock, resnet32

SEVEN_CNET = "autoprivacy.networks.seven_cnet:seven_cnet"


def facts(network):
    """Linear layers, ReLUs and the logits' shape for one 32x32 image."""
    relus, linear = [], []
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.register_forward_hook(lambda m, i, out: relus.append(out[0].numel()))
        if isinstance(module, nn.Conv2d | nn.Linear):
            linear.append(module)
    with torch.no_grad():
        shape = network.eval()(torch.zeros(1, 3, 32, 32)).shape
    return len(linear), sum(relus), tuple(shape)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_7cnet():
    assert facts(build(SEVEN_CNET, 10)) == (8, 173056, (1, 10))


def test_resnet32():
    # 0.46 million parameters for 10 classes (He et al., Table 6); 470,004 with batch norm and 100 outputs
    network = build("autoprivacy.networks.resnet:resnet32", 100)
    assert facts(network) == (32, 303104, (1, 100)) and parameters(network) == 470004
    assert parameters(resnet32(10)) == 464154


def test_resnet32_sizes_and_strides():
    convolutions = [m for m in resnet32(10).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [16] * 11 + [32] * 10 + [64] * 10
    assert [i for i, m in enumerate(convolutions) if m.stride == (2, 2)] == [11, 21]
    assert {m.kernel_size for m in convolutions} == {(3, 3)} and all(m.bias is None for m in convolutions)


def test_the_teacher_has_sixteen_times_the_weights():
    network = build("autoprivacy.networks.resnet:resnet32x4", 100)
    convolutions = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d)]
    plain = [m.weight.numel() for m in resnet32(100).modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [4 * plain[0], *(16 * count for count in plain[1:])]


def test_a_shortcut_takes_every_second_pixel_and_adds_zero_channels():
    block = BasicBlock(4, 8, 2).eval()
    nn.init.zeros_(block.bn2.weight)  # the convolutions' path gives nothing
    images = torch.rand(2, 4, 6, 6)
    out = block(images)
    assert out.shape == (2, 8, 3, 3) and torch.equal(out[:, 2:6], images[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 6:].any()
    assert torch.equal(F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), out)


def test_a_block_of_one_size_has_the_identity():
    block = BasicBlock(4, 4, 1).eval()
    nn.init.zeros_(block.bn2.weight)
    images = torch.rand(2, 4, 6, 6)
    assert torch.equal(block(images), images)


def test_mobilenet_v2():
    network = build("autoprivacy.networks.mobilenet_v2:mobilenet_v2", 100)
    # torchvision's 1000-class network has 3,504,872 parameters; only the classifier differs in size
    assert parameters(network) == 3504872 - 900 * 1281
    assert facts(network) == (53, 589824, (1, 100))
    assert parameters(mobilenet_v2(10)) == 3504872 - 990 * 1281


def test_mobilenet_v2_ends_at_4x4_with_its_strides():
    network = mobilenet_v2(10).eval()
    sizes = []
    for stage in network.features:
        stage.register_forward_hook(lambda m, i, out: sizes.append(out.shape[2]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    # the first convolution, then blocks of 1, 2, 3, 4, 3, 3, 1, then the last convolution
    assert sizes == [32] * 2 + [16] * 2 + [8] * 3 + [4] * 4 + [4] * 3 + [4] * 3 + [4] * 2


NETWORK_FILE = """
from dataclasses import dataclass
from neighbour import WIDTH
from torch import nn
@dataclass
class Settings:
    width: "int" = WIDTH
def network(classes):
    first = nn.Conv2d(3, Settings().width, 3)
    return nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))
def other(first, second):
    pass
"""


@pytest.fixture
def own_file(tmp_path):
    (tmp_path / "neighbour.py").write_text("WIDTH = 6\n")
    path = tmp_path / "my network.py"
    path.write_text(NETWORK_FILE)
    return path


def test_a_network_of_a_file_with_a_neighbour(own_file):
    assert build(f"{own_file}:network", 7)(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_a_model_that_is_not_there_is_named(own_file, tmp_path):
    (tmp_path / "wrong.py").write_text("def f(:\n")
    names = ("autoprivacy.networks.seven_cnet:nine", "no_module:f", "nocolon", f"{own_file}:nine")
    for name in (*names, f"{tmp_path}/none.py:f", f"{tmp_path}/wrong.py:f"):
        with pytest.raises(UserError, match="expected .package.module:function., .path/to/file.py:function") as error:
            build(name, 10)
        assert "\n" not in str(error.value)


def test_a_function_that_makes_no_network_is_named(own_file):
    with pytest.raises(UserError, match="returned int"):
        build("operator:neg", 10)
    with pytest.raises(UserError, match="missing a required argument.*a function of one argument"):
        build(f"{own_file}:other", 10)


def dataset(classes, size=(32, 32), channels=3):
    images = torch.zeros((classes, *size, channels), dtype=torch.uint8).numpy()
    split = Split(images, torch.arange(classes).numpy())
    return Dataset("mine", split, split, (0.5,) * channels, (0.25,) * channels, "made here")


def test_a_network_is_checked_against_the_data():
    network = build_for(SEVEN_CNET, 10, dataset(10))
    assert network.training and parameters(network) == parameters(build(SEVEN_CNET, 10))
    with pytest.raises(UserError, match="built for 10 classes, but the data set mine has 7"):
        build_for(SEVEN_CNET, 10, dataset(7))
    with pytest.raises(UserError, match="does not take the 3x24x32 images of mine: .*shapes cannot be multiplied"):
        build_for(SEVEN_CNET, 10, dataset(10, (24, 32)))
    with pytest.raises(UserError, match="does not take the 1x32x32 images"):
        build_for(SEVEN_CNET, 10, dataset(10, channels=1))


def test_a_network_with_other_outputs_than_asked_for(tmp_path):
    (tmp_path / "fixed.py").write_text(
        NETWORK_FILE.replace("from neighbour import WIDTH", "WIDTH = 6").replace("6, classes", "6, 1000")
    )
    with pytest.raises(UserError, match=r"the shape \(1, 1000\); expected \(1, 10\)"):
        build_for(f"{tmp_path}/fixed.py:network", 10, dataset(10))
