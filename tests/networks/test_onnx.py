"""Networks from ONNX files compute what the torch module computes that they were exported from."""

import sys

import numpy as np
import pytest
import torch
from support.float_networks import NETWORKS, randomised
from support.published_resnet import resnet32

from autoprivacy.errors import UserError
from autoprivacy.networks import build
from autoprivacy.quantization.importer import import_module
from autoprivacy.training.checkpoints import load_weights

onnx = pytest.importorskip("onnx")


def exported(module, size, path, dynamic=False):
    """By torch's exporter of TorchScript, which needs no further package."""
    axes = {"images": {0: "batch"}} if dynamic else None
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(
            module.eval(), (torch.randn(1, 3, *size),), path, input_names=["images"], dynamic_axes=axes, dynamo=False
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", [*NETWORKS, "published"])
def test_exported_networks(name, tmp_path):
    build_module, size = NETWORKS.get(name, (resnet32, (32, 32)))
    module = randomised(build_module())
    path = str(tmp_path / "net.onnx")
    exported(module, size, path, dynamic=True)
    own = build(path, 6)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = module.eval()(images)
        torch.testing.assert_close(own.eval()(images), expected, rtol=1e-4, atol=1e-4)
    graph, through = import_module(module, (3, *size)), import_module(own, (3, *size))
    assert [layer.shape.kernel for layer in graph.layers.values()] == [
        layer.shape.kernel for layer in through.layers.values()
    ]
    torch.testing.assert_close(through.outputs(images), expected.flatten(1), rtol=1e-3, atol=1e-3)
    other = build(path, 6)
    for parameter in other.parameters():
        parameter.data.zero_()
    load_weights(other, path)
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), other.state_dict().values(), strict=True))


def model_of(nodes, weights, shape=(1, 3, 6, 6)):
    helper = onnx.helper
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", "m"])]
    graph = helper.make_graph([helper.make_node(*node[:3], **node[3]) for node in nodes], "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_product_and_its_bias_are_one_layer_and_pads_of_two_sides_are_done(tmp_path):
    generator = np.random.default_rng(1)
    weights = {
        "w": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "m": generator.normal(size=(4, 5)).astype(np.float32),
        "b": generator.normal(size=5).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ("Relu", ["c"], ["r"], {}),
        ("ReduceMean", ["r"], ["p"], {"axes": [2, 3], "keepdims": 0}),
        ("MatMul", ["p", "m"], ["t"], {}),
        ("Add", ["t", "b"], ["y"], {}),
    ]
    onnx.save(model_of(nodes, weights), tmp_path / "a.onnx")
    own = build(str(tmp_path / "a.onnx"), 5)
    graph = import_module(own, (3, 6, 6))
    assert [layer.shape.kind for layer in graph.layers.values()] == ["convolution", "fully_connected"]
    x = torch.randn(2, 3, 6, 6)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(weights["w"]), stride=2).relu().mean((2, 3))
    expected = expected @ torch.from_numpy(weights["m"]) + torch.from_numpy(weights["b"])
    torch.testing.assert_close(graph.outputs(x), expected, rtol=1e-4, atol=1e-4)


def test_what_is_not_supported_or_damaged_is_refused(tmp_path, monkeypatch):
    onnx.save(model_of([("Erf", ["x"], ["y"], {})], {}), tmp_path / "a.onnx")
    with pytest.raises(UserError, match="node y: Erf is not supported; supported: Add, AveragePool"):
        build(str(tmp_path / "a.onnx"), 2)
    (tmp_path / "b.onnx").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="b.onnx: not a readable ONNX model"):
        build(str(tmp_path / "b.onnx"), 2)
    with pytest.raises(UserError, match="c.onnx: no such file"):
        build(str(tmp_path / "c.onnx"), 2)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install -r requirements-onnx.txt"):
        build(str(tmp_path / "a.onnx"), 2)
