"""Lightning: mixed on its way to the device, plain in validation, exact after a checkpoint, and in two processes."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from mixcollate import MixUp, MixupCollate, RandomErasing, soft_cross_entropy
from mixcollate.integrations.lightning import MixupCallback
from mixcollate.schedules import ramp
from tests.integrations.processes import run_in_two

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


class Watching(pl.Callback):
    """Keeps what training and validation saw."""

    def __init__(self, stop_at=None):
        self.targets, self.labels, self.stop_at = [], [], stop_at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.targets.append(batch[1])
        if trainer.global_step == self.stop_at:
            trainer.save_checkpoint(trainer.default_root_dir + "/middle.ckpt")
            trainer.should_stop = True

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.labels.append(batch[1])


def fit(example, root, seed=0, checkpoint=None, stop_at=None, p=1.0, epochs=3):
    pl.seed_everything(seed, verbose=False)
    collate = MixupCollate(MixUp(p=p), num_classes=10, mean=0.31, std=0.38, seed=0)
    watching = Watching(stop_at)
    callbacks = [MixupCallback(collate, off_epochs=1), watching]
    trainer = pl.Trainer(max_epochs=epochs, min_epochs=0, callbacks=callbacks, default_root_dir=str(root), **QUIET)
    module = example["Classifier"]()
    trainer.fit(module, example["Digits"](collate), ckpt_path=checkpoint)
    return watching, module, collate


def test_it_learns(example, tmp_path):
    trainer = example["main"](default_root_dir=str(tmp_path), **QUIET)
    assert trainer.callback_metrics["accuracy"] > 0.85


def test_training_is_mixed_but_for_the_last_epoch_and_validation_is_not(example, tmp_path):
    watching, _, collate = fit(example, tmp_path)
    epochs = [torch.cat(watching.targets[start : start + 15]) for start in (0, 15, 30)]
    assert [bool(((targets > 0) & (targets < 1)).any()) for targets in epochs] == [True, True, False]
    assert collate.epoch == 2 and collate.enabled  # for another run
    assert all(labels.dtype == torch.int64 for labels in watching.labels)


def test_a_collate_that_was_turned_off_mixes_after_an_interruption(example, tmp_path):
    class Interrupting(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert not collate.enabled
            raise RuntimeError("stopped")

    collate = MixupCollate(num_classes=10, mean=0.31, std=0.38)
    callbacks = [MixupCallback(collate, off_epochs=1), Interrupting()]
    trainer = pl.Trainer(max_epochs=1, callbacks=callbacks, default_root_dir=str(tmp_path), **QUIET)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.fit(example["Classifier"](), example["Digits"](collate))
    assert collate.enabled


def test_the_last_epochs_are_those_before_averaging_adds_its_own(tmp_path):
    """It looks at all images once more, for the statistics of batch normalisation."""
    mixed = {}

    class Normalised(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 4))

        def training_step(self, batch, index):
            mixed.setdefault(self.current_epoch, []).append(bool((batch[1].max(1).values < 1).any()))
            return soft_cross_entropy(self.layers(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    collate = MixupCollate(num_classes=4, seed=0)
    loader = DataLoader(TensorDataset(torch.rand(32, 3, 2, 2), torch.arange(32) % 4), 16, collate_fn=collate)
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)
    callbacks = [MixupCallback(collate, off_epochs=1), averaging]
    pl.Trainer(max_epochs=4, callbacks=callbacks, default_root_dir=str(tmp_path), **QUIET).fit(Normalised(), loader)
    assert [all(epoch) for epoch in mixed.values()] == [True, True, True, False, False]


@pytest.mark.parametrize("stop_at", [7, 22, 37])
def test_a_checkpoint_in_mid_epoch_goes_on_exactly(example, tmp_path, stop_at):
    """In the first, where nothing is mixed yet, in the second, and in the last, where nothing is mixed any more."""
    p = ramp(0.5, 2)
    whole, module, _ = fit(example, tmp_path, p=p)
    fit(example, tmp_path, stop_at=stop_at, p=p)
    rest, resumed, _ = fit(example, tmp_path, seed=5, checkpoint=tmp_path / "middle.ckpt", p=p)
    assert len(rest.targets) == 45 - stop_at
    assert all(map(torch.equal, whole.targets[stop_at:], rest.targets))
    assert all(map(torch.equal, module.parameters(), resumed.parameters()))


def test_loaders_that_run_side_by_side_have_collates_of_their_own(tmp_path):
    """Of one trainer, which takes one callback of a kind into its checkpoints."""
    mixed = {"first": [], "second": []}

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(12, 4)

        def training_step(self, batch, _):
            for name, (_, targets) in batch.items():
                mixed[name].append(bool((targets.max(1).values < 1).any()))
            return sum(soft_cross_entropy(self.net(images.flatten(1)), targets) for images, targets in batch.values())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    collates = [MixupCollate(num_classes=4, seed=seed) for seed in (0, 1)]
    data = TensorDataset(torch.rand(16, 3, 2, 2), torch.arange(16) % 4)
    loaders = {name: DataLoader(data, 8, collate_fn=one) for name, one in zip(mixed, collates, strict=True)}
    callback = MixupCallback(collates, off_epochs=1)
    options = {**QUIET, "default_root_dir": str(tmp_path)}
    trainer = pl.Trainer(max_epochs=2, callbacks=callback, **options)
    trainer.fit(Module(), loaders)
    assert mixed == {"first": [True, True, False, False], "second": [True, True, False, False]}
    assert [one.state_dict()["step"] for one in collates] == [4, 4]
    assert all(one.enabled for one in collates)
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    for one in collates:
        one.stream.step = 9
    pl.Trainer(max_epochs=2, callbacks=callback, **options).fit(Module(), loaders, ckpt_path=tmp_path / "both.ckpt")
    assert [one.state_dict()["step"] for one in collates] == [4, 4]
    one = MixupCallback(collates[0])
    with pytest.raises(ValueError, match="or a list of those of several, .* a loader has another, with MixUp: give"):
        pl.Trainer(max_epochs=1, callbacks=one, **options).fit(Module(), loaders)
    plain = DataLoader(data, 8, collate_fn=collates[1].plain())  # whose epoch and state do not matter
    one.on_train_epoch_start(SimpleNamespace(train_dataloader=[loaders["first"], plain], current_epoch=1), None)
    assert collates[0].epoch == 1
    with pytest.raises(ValueError, match="collate must be 2 collates as in the checkpoint, got 1"):
        one.load_state_dict(callback.state_dict())
    one.load_state_dict({"seed": 0, "step": 3})  # as it was before there could be several
    assert collates[0].state_dict()["step"] == 3


def test_a_transform_after_the_transfer(tmp_path):
    """``on_after_batch_transfer`` has a batch of tensors, and the trainer says whether it trains."""
    mixup, seen = MixUp(num_classes=10), []

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 10)

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return mixup(*batch) if self.trainer.training else batch

        def training_step(self, batch, _):
            seen.append(batch[1])
            return torch.nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = DataLoader(TensorDataset(torch.rand(32, 1, 2, 2), torch.arange(32) % 10), 16)
    pl.Trainer(max_epochs=1, default_root_dir=str(tmp_path), **QUIET).fit(Module(), loader)
    assert [targets.shape for targets in seen] == [(16, 10)] * 2


def test_an_eager_collate_is_told_too_late():
    with pytest.warns(UserWarning, match="an eager collate may mix the first batches as in the epoch before"):
        MixupCallback([MixupCollate(num_classes=10), MixupCollate(num_classes=10, eager=True)])


def test_fabric_mixes_where_it_moves_batches():
    fabric = Fabric(accelerator="cpu", devices=1)
    data = TensorDataset(torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8), torch.arange(20) % 10)
    collate = MixupCollate(num_classes=10, mean=0.5, std=0.25, seed=0)
    loaders = [DataLoader(data, 8, collate_fn=one) for one in (collate, collate.plain())]
    training, evaluation = fabric.setup_dataloaders(*loaders)
    for enabled in (True, False):
        collate.enabled = enabled
        batches = [(images.dtype, targets.max(1).values.min() < 1) for images, targets in training]
        assert batches == [(torch.float32, enabled)] * 3
    assert collate.state_dict() == {"seed": 0, "step": 6}
    assert torch.equal(torch.cat([labels for _, labels in evaluation]), data.tensors[1])


def test_what_the_callback_refuses(example, tmp_path):
    collate = MixupCollate(num_classes=10)
    assert MixupCallback((collate,)).collates == MixupCallback([collate]).collates == (collate,)
    for wrong in ([], [collate, None], None):
        with pytest.raises(
            TypeError, match="collate must be the training loader's MixupCollate, or a list of several, got"
        ):
            MixupCallback(wrong)
    with pytest.raises(ValueError, match="off_epochs must be a whole number of at least 0, got -1"):
        MixupCallback(MixupCollate(num_classes=10), off_epochs=-1)
    with pytest.raises(ValueError, match="off_epochs=1 requires max_epochs of the Trainer, got -1"):
        fit(example, tmp_path, epochs=-1)


def test_a_collate_that_the_training_loader_does_not_have_is_refused(example, tmp_path):
    first, second = (MixupCollate(num_classes=10, mean=0.31, std=0.38) for _ in range(2))
    callback, loaders = MixupCallback(first), example["Digits"](second)
    trainer = pl.Trainer(max_epochs=1, callbacks=callback, default_root_dir=str(tmp_path), **QUIET)
    with pytest.raises(ValueError, match="collate must be that of the training loader, .* but a loader has another"):
        trainer.fit(example["Classifier"](), loaders)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_an_evaluation_on_mixed_batches_is_refused(stage, tmp_path):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 10)

        def training_step(self, batch, batch_idx, dataloader_idx=0):
            return soft_cross_entropy(self.net(batch[0].flatten(1)), batch[1])

        validation_step = test_step = predict_step = training_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def run(known):
        callback = MixupCallback(known)
        trainer = pl.Trainer(max_epochs=1, callbacks=callback, default_root_dir=str(tmp_path), **QUIET)
        loaders = [loader(collate)] if stage == "fit" else []
        getattr(trainer, stage)(Module(), *loaders, [loader(plain), loader(collate)])

    def loader(collate):
        return DataLoader(TensorDataset(torch.rand(8, 1, 2, 2), torch.arange(8)), batch_size=4, collate_fn=collate)

    refused = pytest.raises(ValueError, match=r"not mix the batches of an evaluation, but .* has one with \w+; give")
    collate = MixupCollate(RandomErasing(), num_classes=10)
    plain = collate.plain()
    with refused:
        run(collate)
    collate = MixupCollate(num_classes=10)
    for known in (collate, MixupCollate(num_classes=10)):  # whether or not it is the callback's
        with refused:
            run(known)
    collate.enabled = False
    run(collate)
    assert not collate.enabled  # without off_epochs, the callback leaves it alone


def test_a_run_without_an_end_is_mixed_throughout():
    collate = MixupCollate(num_classes=10)
    MixupCallback(collate).on_train_epoch_start(SimpleNamespace(current_epoch=3, train_dataloader=None), None)
    assert collate.epoch == 3 and collate.enabled


TWO = """
import os, sys, runpy, torch, lightning.pytorch as pl
from mixcollate import MixupCollate
from mixcollate.integrations.lightning import MixupCallback

if __name__ == "__main__":
    example = runpy.run_path(sys.argv[1])
    collate, seen = MixupCollate(num_classes=10, mean=0.31, std=0.38, seed=0), []

    class Watching(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(batch[1])

    quiet = dict.fromkeys(["logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"], False)
    callbacks = [MixupCallback(collate), Watching()]
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, callbacks=callbacks, **quiet)
    trainer.fit(example["Classifier"](), example["Digits"](collate))
    torch.save(seen, sys.argv[2] + os.environ["RANK"])
"""


def test_two_processes_draw_different_plans_for_their_parts(tmp_path):
    first, second = run_in_two(TWO, "with_lightning", tmp_path)
    assert len(first) == len(second) == 8  # of 15 batches; the last is shorter
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
