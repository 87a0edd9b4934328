"""``MixupCallback``: Lightning tells the collate the epoch, and keeps its place in checkpoints."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mixcollate.checks import check_count
from mixcollate.collate import MixupCollate


class MixupCallback(Callback):
    """Keep a :class:`~mixcollate.MixupCollate` in step with a Lightning ``Trainer``.

    Schedules learn the epoch, and a checkpoint holds the collate's place in its stream, so that a run with ``seed=``
    and a loader that resumes (torchdata's ``StatefulDataLoader``) goes on exactly, in mid-epoch, too.

    Args:
        collate: the one that the training loader has; validation takes ``collate.plain()``.
        off_epochs: how many epochs at the end are trained on plain images; needs the trainer's ``max_epochs``.
    """

    def __init__(self, collate: MixupCollate, *, off_epochs: int = 0) -> None:
        if not isinstance(collate, MixupCollate):
            raise TypeError(f"collate must be the training loader's MixupCollate, got {type(collate).__name__}")
        self.collate, self.off_epochs = collate, check_count("off_epochs", off_epochs, least=0)
        self._max_epochs: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask how long it trains, before averaging of weights adds an epoch of its own."""
        self._max_epochs = trainer.max_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell it before the first batch, too: an epoch that goes on in its middle does not start."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the collate the epoch, and whether it still mixes."""
        self.collate.set_epoch(trainer.current_epoch)
        if self.off_epochs:
            if self._max_epochs is None or self._max_epochs < 0:
                raise ValueError(f"off_epochs={self.off_epochs} needs a Trainer with max_epochs, which says the last")
            self.collate.enabled = trainer.current_epoch < self._max_epochs - self.off_epochs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn the collate on again, which another run may have, too."""
        if self.off_epochs:
            self.collate.enabled = True

    def state_dict(self) -> dict[str, Any]:
        """The collate's place in its stream."""
        return dict(self.collate.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.collate.load_state_dict(state_dict)
