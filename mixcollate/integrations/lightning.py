"""``MixupCallback``: a Lightning callback that sets the collate's epoch and saves its state in checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._pytree import tree_leaves

from mixcollate.checks import check_count, shown, warn
from mixcollate.collate import MixupCollate
from mixcollate.loader import collate_of
from mixcollate.transforms import Unchanged


class MixupCallback(Callback):
    """Keep a :class:`~mixcollate.MixupCollate` in step with a Lightning ``Trainer``.

    It sets the epoch for schedules, and saves the collate's position in its stream in checkpoints: with ``seed=`` and a
    loader that can resume (torchdata's ``StatefulDataLoader``), a run resumes exactly, even within an epoch. It refuses
    to validate, test or predict on mixed batches.

    Args:
        collate: the collate of the training loader, or a list of those of several loaders; use ``collate.plain()`` for
            validation.
        off_epochs: number of final epochs to train on plain images; requires the trainer's ``max_epochs``, from which
            they are counted: a run that ends before, by ``max_steps`` or ``EarlyStopping``, does not reach them.
    """

    def __init__(self, collate: MixupCollate | Sequence[MixupCollate], *, off_epochs: int = 0) -> None:
        collates = tuple(collate) if isinstance(collate, (list, tuple)) else (collate,)
        if not collates or not all(isinstance(one, MixupCollate) for one in collates):
            raise TypeError(
                f"collate must be the training loader's MixupCollate, or a list of several, got {shown(collate)}"
            )
        if any(one.eager for one in collates):
            warn(
                "Lightning starts the workers of an epoch before it tells callbacks which one it is, so that an eager "
                "collate may mix the first batches as in the epoch before; use eager=False, so that batches are mixed "
                "where Lightning moves them",
            )
        self.collates, self.off_epochs = collates, check_count("off_epochs", off_epochs, least=0)
        self._max_epochs: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read how long it trains, before weight averaging adds an epoch."""
        self._max_epochs = trainer.max_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the epoch before the first batch, too: an epoch that is resumed in the middle does not start."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the epoch of each collate, and whether it still mixes."""
        for one in _collates_of(trainer.train_dataloader):  # loaders of other kinds may hide theirs
            if one not in self.collates and not isinstance(one.transform, Unchanged):
                raise ValueError(
                    "collate must be that of the training loader, or a list of those of several, whose epochs and "
                    f"states it is to keep, but a loader has another, with {type(one.transform).__name__}: give loader "
                    "and callback the same"
                )
        last = -1 if self._max_epochs is None else self._max_epochs
        if self.off_epochs and last < 0:
            raise ValueError(f"off_epochs={self.off_epochs} requires max_epochs of the Trainer, got {self._max_epochs}")
        for collate in self.collates:
            collate.set_epoch(trainer.current_epoch)
            if self.off_epochs:
                collate.enabled = trainer.current_epoch < last - self.off_epochs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn mixing on again: another run may use the same collates."""
        for collate in self.collates if self.off_epochs else ():
            collate.enabled = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Turn it on again where a run is interrupted, too."""
        self.on_train_end(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Refuse to validate on mixed batches."""
        self._refuse_mixed("validation", trainer.val_dataloaders)

    def on_test_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Refuse to test on mixed batches."""
        self._refuse_mixed("test", trainer.test_dataloaders)

    def on_predict_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Refuse to predict from mixed batches."""
        self._refuse_mixed("predict", trainer.predict_dataloaders)

    def _refuse_mixed(self, name: str, loaders: Any) -> None:
        # asked at a batch, by when the module's own hooks may have turned the collate off
        for one in _collates_of(loaders):
            if one.enabled and (one in self.collates or one.transform.mixes):
                raise ValueError(
                    f"collate must not mix the batches of an evaluation, but a {name} loader has one with "
                    f"{type(one.transform).__name__}; give it collate.plain()"
                )

    def state_dict(self) -> dict[str, Any]:
        """The position of each collate in its stream."""
        return {"collates": [collate.state_dict() for collate in self.collates]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from these positions."""
        states = state_dict.get("collates", [state_dict])  # older checkpoints hold the state of a single collate
        if len(states) != len(self.collates):
            raise ValueError(f"collate must be {len(states)} collates as in the checkpoint, got {len(self.collates)}")
        for collate, state in zip(self.collates, states, strict=True):
            collate.load_state_dict(state)


def _collates_of(loaders: Any) -> list[MixupCollate]:
    """The collates of a loader, or of several in a collection, as far as they can be found."""
    found = (collate_of(loader) for loader in tree_leaves(loaders))
    return [collate for collate in found if collate is not None]
