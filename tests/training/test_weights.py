"""Weights as people save them are loaded; what is damaged, of another network or not finite is refused in one line."""

import argparse

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.float_networks import Residual, randomised
from support.published_resnet import published_file, resnet32
from torch import nn

from autoprivacy.errors import UserError
from autoprivacy.storage import write_arrays
from autoprivacy.training.checkpoints import load_weights, start_from


def network(seed=1):
    return randomised(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)), seed
    )


STATE = network().state_dict()


def prefixed(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


def without_counters(state=STATE):
    return {name: value for name, value in state.items() if "num_batches" not in name}


FORMS = {
    "plain": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3, "best_prec1": np.float64(92.6)},
    "model": {
        "model": STATE,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
        "args": argparse.Namespace(lr=1),
    },
    "nested": {"checkpoint": {"model_state_dict": prefixed("module.")}},
    "data parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "both": {"state_dict": prefixed("module._orig_mod.")},
    "a part in parallel": {name.replace("0.", "0.module.", 1): value for name, value in STATE.items()},
    "lightning": {
        "state_dict": {**prefixed("model."), "loss.weight": torch.ones(2)},
        "pytorch-lightning_version": "2.5",
    },
    "averaged": {**prefixed("module."), "n_averaged": torch.tensor(7)},
    "before 0.4.1": without_counters(),
    "of thop": {**STATE, "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
    "half": {name: value.half() if value.is_floating_point() else value for name, value in STATE.items()},
    "bfloat16": {name: value.bfloat16() if value.is_floating_point() else value for name, value in STATE.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_network(form, tmp_path):
    torch.save(FORMS[form], tmp_path / "a.pth")
    loaded = network(2)
    load_weights(loaded, tmp_path / "a.pth")
    tolerance = {"half": 1e-3, "bfloat16": 1e-2}.get(form, 0)
    for name, value in loaded.state_dict().items():
        assert value.dtype == STATE[name].dtype
        torch.testing.assert_close(value, STATE[name], rtol=tolerance, atol=tolerance)


def test_safetensors(tmp_path):
    save_file({name: value.contiguous() for name, value in prefixed("module.").items()}, tmp_path / "a.safetensors")
    loaded = network(2)
    load_weights(loaded, tmp_path / "a.safetensors")
    assert all(torch.equal(value, STATE[name]) for name, value in loaded.state_dict().items())
    (tmp_path / "b.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(UserError, match="b.safetensors: not a readable safetensors file"):
        load_weights(loaded, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="c.safetensors: no such file"):
        load_weights(loaded, tmp_path / "c.safetensors")


@pytest.mark.parametrize("half", [False, True])
def test_the_published_cifar_resnet_file(half, tmp_path):
    source, loaded = randomised(resnet32()), resnet32()
    published_file(source, tmp_path / "resnet32.th", half)
    load_weights(loaded, tmp_path / "resnet32.th")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, got = source.eval()(images), loaded.eval()(images)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-2 * float(expected.abs().max()) if half else 0)


@pytest.mark.parametrize("suffix", ["pth", "npz", "safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(suffix, value, tmp_path):
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    state["4.bias"][1] = value
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        write_arrays(path, {name: tensor.numpy() for name, tensor in state.items()})
    else:
        (save_file if suffix == "safetensors" else torch.save)(state, path)
    for load in (load_weights, start_from):
        with pytest.raises(UserError, match=r"a\..*: 4.bias: 1 of 2 values are NaN or infinite"):
            load(network(2), path)


def test_other_weights_are_refused(tmp_path):
    torch.save({**STATE, "5.weight": torch.zeros(2, 2)}, tmp_path / "more.pth")
    with pytest.raises(UserError, match=r"5.weight is \(2, 2\), expected no such entry"):
        load_weights(network(), tmp_path / "more.pth")
    torch.save({name: value for name, value in STATE.items() if name != "1.running_mean"}, tmp_path / "less.pth")
    with pytest.raises(UserError, match=r"1.running_mean is missing, expected \(4,\)"):
        load_weights(network(), tmp_path / "less.pth")
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(UserError, match="a Python object, torch.nn.*, which is not read as it could run anything"):
        load_weights(network(), tmp_path / "module.pth")
    torch.save({"generator": STATE, "critic": STATE}, tmp_path / "two.pth")
    with pytest.raises(
        UserError, match="a dict of generator, critic; expected a state_dict of tensors, alone or under"
    ):
        load_weights(network(), tmp_path / "two.pth")


def test_residual_networks_under_a_name_of_their_training_module(tmp_path):
    source, loaded = randomised(Residual()), Residual()
    torch.save({"state_dict": prefixed("net.", source.state_dict())}, tmp_path / "a.ckpt")
    load_weights(loaded, tmp_path / "a.ckpt")
    assert torch.equal(loaded.fc.weight, source.fc.weight)
