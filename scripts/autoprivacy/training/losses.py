"""Losses of training: labels, of mixed images too, and a teacher's outputs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from autoprivacy.training.mixing import Mixed


def label_loss(logits: Tensor, labels: Tensor, mixed: Mixed | None, smoothing: float) -> Tensor:
    """Cross entropy with smoothed labels, of a mixed batch with the labels of both images by their shares."""
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if mixed is None:
        return loss
    partner_loss = F.cross_entropy(logits, labels[mixed.partners], label_smoothing=smoothing)
    return mixed.share * loss + (1 - mixed.share) * partner_loss


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of the student's softened outputs [N, classes] from the teacher's (Hinton et al., section 2).

    The square of the temperature keeps the gradients' size, whatever the temperature.
    """
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(teacher_logits / temperature, 1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
