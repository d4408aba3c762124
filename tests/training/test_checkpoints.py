"""Checkpoints: round trips, files that are refused, and training that starts from one."""

import pytest
import torch
from support.toy_training import toy_network
from torch import nn

from autoprivacy.errors import UserError
from autoprivacy.training.checkpoints import load_weights, round_weights, save_weights, start_from
from autoprivacy.training.trainer import initialise


def test_checkpoints_round_trip_and_mismatches_are_named(tmp_path):
    model = toy_network()
    save_weights(model, tmp_path / "a.npz", {"model": "toy"})
    other = toy_network()
    assert load_weights(other, tmp_path / "a.npz") == {"model": "toy"}
    assert all(
        torch.allclose(a, b, rtol=2**-11, atol=2**-24)
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    round_weights(model)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    wrong = nn.Sequential(*list(toy_network())[:-1], nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"another network or class count: 7.bias is \(2,\), expected \(3,\)"):
        load_weights(wrong, tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a readable npz"):
        load_weights(other, tmp_path / "b.npz")


def test_a_torch_state_dict_is_a_checkpoint_too(tmp_path):
    model, other = initialise(toy_network(), 1), initialise(toy_network(), 2)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert load_weights(other, tmp_path / "a.pt") == {}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_torch_files_that_are_no_state_dict_are_refused_without_running_them(tmp_path):
    model, path = toy_network(), tmp_path / "a.pth"
    with pytest.raises(UserError, match="a.pth: no such file"):
        load_weights(model, path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="a.pth: not a state_dict of tensors"):
        load_weights(model, path)
    torch.save(model, path)  # a pickled module, which would be executed
    with pytest.raises(UserError, match="a.pth: not a state_dict of tensors") as error:
        load_weights(model, path)
    assert "\n" not in str(error.value)
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, path)
    with pytest.raises(UserError, match="a dict of epoch, optimizer; expected a state_dict"):
        load_weights(model, path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UserError, match="a.pth: list; expected"):
        load_weights(model, path)


def test_training_starts_from_a_checkpoint_but_for_another_classifier(tmp_path):
    source = round_weights(initialise(toy_network(), 7))
    save_weights(source, tmp_path / "body.npz", {})
    three_classes = initialise(nn.Sequential(*toy_network()[:-1], nn.Linear(4, 3)), 8)
    fresh = three_classes[7].weight.clone()
    start_from(three_classes, tmp_path / "body.npz")
    assert torch.equal(three_classes[0].weight, source[0].weight)
    assert torch.equal(three_classes[1].running_var, source[1].running_var)
    assert torch.equal(three_classes[7].weight, fresh)


def test_initial_weights_of_another_network_are_refused(tmp_path):
    save_weights(nn.Linear(4, 2), tmp_path / "other.npz", {})
    with pytest.raises(UserError, match=r"other.npz has 0% of the network's weights"):
        start_from(toy_network(), tmp_path / "other.npz")
