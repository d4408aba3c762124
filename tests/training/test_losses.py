"""Losses against their definitions: of mixed labels, and of a teacher."""

import pytest
import torch

from autoprivacy.training.losses import distillation_loss, label_loss
from autoprivacy.training.mixing import Mixed


def test_the_teachers_loss_pulls_towards_its_softened_outputs():
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    distillation_loss(student, teacher, 4.0).backward()
    # Hinton et al., equation 2, times the square of the temperature, averaged over the batch
    expected = 4.0 * (torch.softmax(student / 4, 1) - torch.softmax(teacher / 4, 1)) / 6
    assert torch.allclose(student.grad, expected.detach())
    assert float(distillation_loss(teacher, teacher, 4.0)) == pytest.approx(0, abs=1e-12)


def test_the_loss_of_a_mixed_batch_is_that_of_mixed_labels():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, generator=generator)
    labels, partners = torch.tensor([0, 3, 2, 4]), torch.tensor([1, 0, 3, 2])
    soft = 0.3 * torch.eye(5)[labels] + 0.7 * torch.eye(5)[labels[partners]]
    got = label_loss(logits, labels, Mixed(logits, partners, 0.3), 0.1)
    expected = -((0.9 * soft + 0.1 / 5) * torch.log_softmax(logits, 1)).sum(1).mean()
    assert float(got) == pytest.approx(float(expected), rel=1e-5)
