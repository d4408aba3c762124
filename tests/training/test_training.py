"""Training: it learns, a kill changes nothing, augmentation and checkpoints do what they say."""

from dataclasses import replace

import pytest
import torch
from support.toy_training import toy_dataset, toy_network
from torch import nn

from autoprivacy.errors import UserError
from autoprivacy.training.checkpoints import round_weights, save_weights
from autoprivacy.training.settings import Distillation, Stretch, TrainingSettings
from autoprivacy.training.trainer import Trainer, initialise, warmed_up

SETTINGS = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.1, ema_decay=0.8)
EVERY_OPTION = TrainingSettings(
    epochs=3,
    batch_size=16,
    learning_rate=0.1,
    cutout=4,
    mixup=0.5,
    cutmix=1.0,
    erasing=0.5,
    erasing_from=0.6,
    resolutions=(Stretch(0.3, 16), Stretch(0.4, 24)),
    optimizer="muon",
    precision="bfloat16",
    distillation=Distillation("teacher", 3.0, 0.7),
    ema_decay=0.8,
    evaluate_every=2,
)
NEW_OPTIONS = {
    "plain": SETTINGS,
    "every option": EVERY_OPTION,
    "muon": replace(SETTINGS, optimizer="muon"),
    "bfloat16": replace(SETTINGS, precision="bfloat16"),
    "growing images": replace(SETTINGS, resolutions=(Stretch(0.6, 16),)),
    "late erasing": replace(SETTINGS, erasing=0.5, erasing_from=0.5),
}


def trained(state, interrupt_after=None, monkeypatch=None, settings=SETTINGS):
    teacher = initialise(toy_network(), 5) if settings.distillation else None
    trainer = Trainer(toy_network(), toy_dataset(), settings, state, teacher)
    if interrupt_after is not None:
        step, calls = trainer._train_step, []

        def interrupted(*arguments):
            if len(calls) == interrupt_after:
                trainer.save()
                raise KeyboardInterrupt
            calls.append(1)
            return step(*arguments)

        monkeypatch.setattr(trainer, "_train_step", interrupted)
    return trainer.run(), trainer


def test_it_learns_and_records_its_progress(tmp_path):
    _, trainer = trained(tmp_path / "state.pt")
    assert trainer.progress.accuracies[-1] == 100.0 and len(trainer.progress.losses) == 3


@pytest.mark.parametrize("settings", NEW_OPTIONS.values(), ids=NEW_OPTIONS)
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch, settings):
    whole, record = trained(tmp_path / "whole.pt", settings=settings)
    again, _ = trained(tmp_path / "again.pt", settings=settings)
    assert equal(whole, again)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "state.pt", 7, monkeypatch, settings)  # in the middle of the second epoch
    resumed, trainer = trained(tmp_path / "state.pt", settings=settings)
    assert trainer.step == 15
    assert trainer.progress.losses == record.progress.losses
    assert trainer.progress.accuracies == record.progress.accuracies
    assert equal(whole, resumed)


def equal(one, other):
    """Whether two networks have the same weights, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("option", [name for name in NEW_OPTIONS if name not in ("plain", "every option")])
def test_every_option_changes_the_outcome_and_learns(tmp_path, option):
    plain, _ = trained(tmp_path / "plain.pt")
    other, trainer = trained(tmp_path / "other.pt", settings=NEW_OPTIONS[option])
    assert not equal(plain, other) and trainer.progress.accuracies[-1] == 100.0


def test_training_leaves_the_common_generator_alone(tmp_path):
    trainer = Trainer(toy_network(), toy_dataset(), SETTINGS, tmp_path / "state.pt")
    before = torch.random.get_rng_state()
    trainer.run()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_evaluations_come_at_their_interval_and_at_the_end(tmp_path):
    assert trained(tmp_path / "a.pt")[1].progress.evaluated_epochs == [1, 2, 3]
    _, trainer = trained(tmp_path / "b.pt", settings=EVERY_OPTION)
    assert trainer.progress.evaluated_epochs == [2, 3] and len(trainer.progress.accuracies) == 2


def test_state_is_saved_within_the_interval_and_not_more_often(tmp_path, monkeypatch):
    for interval, count in ((1000.0, 1), (0.0, 16)):  # the last step of an epoch is saved with the epoch's record
        saves, save = [], Trainer.save
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save", lambda self, s=saves, f=save: (s.append(self.step), f(self)))
            trained(
                tmp_path / f"{interval}.pt",
                settings=TrainingSettings(epochs=3, batch_size=16, save_every_seconds=interval),
            )
        assert len(saves) == count and saves[-1] == 15


def test_the_average_forgets_the_initial_weights_at_first(tmp_path):
    settings = TrainingSettings(epochs=1, batch_size=16, learning_rate=0.1, ema_decay=0.5)
    trainer = Trainer(toy_network(), toy_dataset(), settings, tmp_path / "state.pt")
    seen, step = [], trainer._train_step

    def recorded(*arguments):
        loss = step(*arguments)
        seen.append([value.detach().clone().double() for value in trainer.model.state_dict().values()])
        return loss

    trainer._train_step = recorded
    averaged = trainer.run()
    expected = seen[0]
    for update, values in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + update) / (10 + update))
        pairs = zip(expected, values, strict=True)
        expected = [new if new.ndim == 0 else decay * old + (1 - decay) * new for old, new in pairs]
    for got, value in zip(averaged.state_dict().values(), expected, strict=True):
        assert torch.allclose(got.double(), value, atol=1e-6)
    assert [warmed_up(0.998, n) for n in (1, 10**6)] == [2 / 11, 0.998]


def test_a_teacher_needs_settings_and_settings_a_teacher(tmp_path):
    for settings, teacher in ((SETTINGS, toy_network()), (EVERY_OPTION, None)):
        with pytest.raises(ValueError, match="both a teacher and its settings"):
            Trainer(toy_network(), toy_dataset(), settings, tmp_path / "state.pt", teacher)


def test_a_teacher_is_left_as_it_is(tmp_path):
    teacher = initialise(toy_network(), 5)
    before = [value.clone() for value in teacher.state_dict().values()]
    Trainer(toy_network(), toy_dataset(), EVERY_OPTION, tmp_path / "state.pt", teacher).run()
    assert all(torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), before, strict=True))
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_distillation_alone_teaches_the_teachers_answers(tmp_path):
    teacher, _ = trained(tmp_path / "teacher.pt")
    swapped = nn.Sequential(teacher, nn.Linear(2, 2, bias=False))
    swapped[1].weight.data = torch.tensor([[0.0, 5.0], [5.0, 0.0]])  # the other class, and surer of it
    settings = TrainingSettings(
        epochs=3, batch_size=16, learning_rate=0.1, ema_decay=0.8, distillation=Distillation("teacher", 2.0, 1.0)
    )
    trainer = Trainer(toy_network(), toy_dataset(), settings, tmp_path / "student.pt", swapped)
    trainer.run()
    assert trainer.progress.accuracies[-1] == 0.0


def test_settings_from_a_config():
    entry = {"epochs": 2, "mixup": 0.2, "distillation": {"teacher": "t", "temperature": 2, "weight": 0.5}}
    expected = TrainingSettings(epochs=2, mixup=0.2, distillation=Distillation("t", 2, 0.5), seed=7)
    assert TrainingSettings.from_config(entry, 7) == expected
    assert TrainingSettings.from_config({"epochs": 2, "distillation": None}, 7) == TrainingSettings(epochs=2, seed=7)


def test_too_large_a_batch_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch_size 100 exceeds the 80"):
        Trainer(toy_network(), toy_dataset(), TrainingSettings(epochs=1, batch_size=100), tmp_path / "state.pt")


def test_the_trainer_takes_its_initial_weights(tmp_path):
    save_weights(initialise(toy_network(), 7), tmp_path / "first.npz", {})
    settings = replace(SETTINGS, initial_weights=str(tmp_path / "first.npz"))
    trainer = Trainer(toy_network(), toy_dataset(), settings, tmp_path / "state.pt")
    assert torch.equal(trainer.model[0].weight, round_weights(initialise(toy_network(), 7))[0].weight)


def test_images_grow_in_whole_epochs(tmp_path):
    settings = replace(SETTINGS, epochs=9, resolutions=(Stretch(1 / 3, 16), Stretch(1 / 3, 24)))
    assert [settings.pixels(epoch) for epoch in range(9)] == [16] * 3 + [24] * 3 + [None] * 3
    assert [SETTINGS.pixels(epoch) for epoch in range(3)] == [None] * 3
    trainer = Trainer(toy_network(), toy_dataset(), replace(settings, epochs=3), tmp_path / "state.pt")
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    trainer.run()
    assert seen == [(16, 3, pixels, pixels) for pixels in (16, 24, 32) for _ in range(5)]


@pytest.mark.parametrize(
    ("resolutions", "network", "message"),
    [
        ((Stretch(0.6, 16), Stretch(0.6, 24)), toy_network, "the shares add up to 1.2; expected at most 1"),
        ((Stretch(0.5, 40),), toy_network, "40 pixels, but the images of toy have 32x32; expected at most as many"),
        (
            (Stretch(0.5, 16),),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)),
            "the network does not take 16x16 images .*; expected one that averages over all pixels",
        ),
    ],
)
def test_resolutions_that_cannot_be_are_refused_in_one_line(tmp_path, resolutions, network, message):
    with pytest.raises(UserError, match=f"^training.resolutions: {message}") as error:
        Trainer(network(), toy_dataset(), replace(SETTINGS, resolutions=resolutions), tmp_path / "state.pt")
    assert "\n" not in str(error.value)


def test_erasing_begins_at_its_epoch():
    settings = TrainingSettings(epochs=9, erasing=0.5, erasing_from=2 / 3)
    assert [settings.erases(epoch) for epoch in range(9)] == [False] * 6 + [True] * 3
    assert not TrainingSettings(epochs=9).erases(8)
