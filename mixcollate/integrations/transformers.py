"""``MixupTrainer``: a Trainer of Hugging Face's that mixes its training batches, and those alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mixcollate.checks import check_count
from mixcollate.collate import MixupCollate
from mixcollate.losses import soft_cross_entropy


class MixupTrainer(Trainer):
    """``Trainer`` with a :class:`~mixcollate.MixupCollate` as its ``data_collator``.

    Training takes :func:`soft_loss`, not the model's own, which would take soft labels for a multi-label problem.
    Evaluation and prediction take ``collate.plain()``. Checkpoints hold the collate's place in its stream, so a run
    with ``seed=`` resumes exactly. Samples are dicts with what the model's ``forward`` takes (``pixel_values``,
    usually) and ``labels``.

    Args:
        args: as the Trainer's.
        off_epochs: how many epochs at the end are trained on plain images.
        kwargs: as the Trainer's; ``data_collator`` must be a ``MixupCollate``.
    """

    data_collator: Any

    def __init__(self, *args: Any, off_epochs: int = 0, **kwargs: Any) -> None:
        kwargs.setdefault("compute_loss_func", soft_loss)
        super().__init__(*args, **kwargs)
        collate = self.data_collator
        if not isinstance(collate, MixupCollate):
            raise TypeError(f"data_collator must be a MixupCollate, got {type(collate).__name__}")
        if self.args.label_smoothing_factor:
            smoothing = self.args.label_smoothing_factor
            raise ValueError(
                f"label_smoothing_factor must be 0, got {smoothing}: give label_smoothing to the transform instead"
            )
        name = getattr(self.model, "main_input_name", "pixel_values")
        columns = getattr(self.train_dataset, "column_names", None)
        if self.args.remove_unused_columns and columns and name not in columns:
            raise ValueError(
                f"the Trainer drops every column that the model's forward does not name, and there is no {name!r} "
                f"among {columns}: rename_columns, or give {name!r} with set_transform and TrainingArguments("
                "remove_unused_columns=False)"
            )
        self.add_callback(MixupCallback(collate, check_count("off_epochs", off_epochs, least=0)))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The Trainer's, with plain batches."""
        with self._plain():
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[no-any-return]

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """The Trainer's, with plain batches."""
        with self._plain():
            return super().get_test_dataloader(test_dataset)  # type: ignore[no-any-return]

    @contextmanager
    def _plain(self) -> Iterator[None]:
        collate = self.data_collator
        self.data_collator = collate.plain()
        try:
            yield
        finally:
            self.data_collator = collate


def soft_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy with soft or plain labels, as the Trainer's ``compute_loss_func``.

    With gradient accumulation the Trainer divides by what it counts over all the step's batches: the entries of the
    labels, ``num_classes`` for each image where they are soft.
    """
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    if num_items_in_batch is None:
        return soft_cross_entropy(logits, labels)
    entries = labels[0].numel() if len(labels) else 1
    return soft_cross_entropy(logits, labels, reduction="sum") * (entries / num_items_in_batch)


class MixupCallback(TrainerCallback, ExportableState):
    """Tells the collate the epoch, turns it off at the end, and keeps its place in checkpoints."""

    def __init__(self, collate: MixupCollate, off_epochs: int = 0) -> None:
        self.collate, self.off_epochs = collate, off_epochs

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into a checkpoint's ``trainer_state.json``."""
        return {"args": {}, "attributes": {"collate": self.collate.state_dict()}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on from the checkpoint, if it is one; a new run has today's state there."""
        saved = state.stateful_callbacks.get(type(self).__name__)
        if saved is not None:
            self.collate.load_state_dict(saved["attributes"]["collate"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the collate the epoch, and whether it still mixes."""
        epoch = int(state.epoch or 0)
        self.collate.set_epoch(epoch)
        if self.off_epochs:
            self.collate.enabled = epoch < state.num_train_epochs - self.off_epochs
