"""``MixupTrainer``: a Trainer of Hugging Face's that mixes its training batches, and those alone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mixcollate.checks import check_count
from mixcollate.collate import MixupCollate
from mixcollate.losses import soft_cross_entropy
from mixcollate.targets import SoftTarget


class MixupTrainer(Trainer):
    """``Trainer`` with a :class:`~mixcollate.MixupCollate` as its ``data_collator``.

    Training takes :func:`soft_loss`, not the model's own, which would take soft labels for a multi-label problem.
    Evaluation and prediction take ``collate.plain()``. With accumulation each step's loss is the mean over its shares
    of labels. Checkpoints hold the collate's place in its stream, so a run with ``seed=`` and a training set with a
    length resumes exactly (of one without, the Trainer takes the batches to be skipped, and mixes them). Samples are
    dicts with what the model's ``forward`` takes (``pixel_values``, usually) and ``labels``.

    Args:
        args: as the Trainer's.
        off_epochs: how many epochs at the end are trained on plain images.
        kwargs: as the Trainer's; ``data_collator`` must be a ``MixupCollate``.
    """

    data_collator: Any

    def __init__(self, *args: Any, off_epochs: int = 0, **kwargs: Any) -> None:
        if kwargs.get("compute_loss_func") in (None, soft_loss):
            kwargs["compute_loss_func"] = _loss_of_shares
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

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """What the Trainer divides a step's losses by: the shares of its labels, in place of their entries."""
        counted = [
            {**batch, "labels": _Counted(batch["labels"])} if "labels" in batch else batch for batch in batch_samples
        ]
        return super()._get_num_items_in_batch(counted, device)

    @contextmanager
    def _plain(self) -> Iterator[None]:
        collate = self.data_collator
        self.data_collator = collate.plain()
        try:
            yield
        finally:
            self.data_collator = collate


class _Counted:
    """Labels whose entries the Trainer counts by ``labels.ne(-100).sum()``: it gets their shares."""

    def __init__(self, labels: Tensor | SoftTarget) -> None:
        if isinstance(labels, SoftTarget):
            self.shares = labels.known(-100).shares
        else:
            self.shares = labels.nan_to_num() if labels.is_floating_point() else labels.ne(-100)

    def ne(self, ignored: int) -> Tensor:
        return self.shares


def soft_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy with soft or plain labels, as the ``compute_loss_func`` of a plain Trainer.

    With gradient accumulation that divides by what it counts over all the step's batches: the entries of the labels,
    ``num_classes`` for each image where they are soft, whether they are missing or not. ``MixupTrainer`` counts shares.

    Raises:
        TypeError: for sparse targets, which it cannot count.
    """
    if isinstance(labels, SoftTarget):
        raise TypeError("labels must be rows or class numbers in a plain Trainer, got a SoftTarget; take MixupTrainer")
    entries = labels[0].numel() if len(labels) else 1
    return _loss_of_shares(outputs, labels, None if num_items_in_batch is None else num_items_in_batch / entries)


def _loss_of_shares(
    outputs: Any, labels: Tensor | SoftTarget, num_items_in_batch: Tensor | float | None = None
) -> Tensor:
    """The same where what is counted over all the step's batches is the shares of labels."""
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    if num_items_in_batch is None:
        return soft_cross_entropy(logits, labels)
    count = torch.as_tensor(num_items_in_batch)
    # a step without a label has no loss, and no gradient
    return soft_cross_entropy(logits, labels, reduction="sum") / count.masked_fill(count == 0, 1)


class MixupCallback(TrainerCallback, ExportableState):
    """Tells the collate the epoch, turns it off at the end, and keeps its place in checkpoints."""

    def __init__(self, collate: MixupCollate, off_epochs: int = 0) -> None:
        self.collate, self.off_epochs, self.next_epoch = collate, off_epochs, 0

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into a checkpoint's ``trainer_state.json``."""
        return {"args": {}, "attributes": {"collate": self.collate.state_dict()}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on from the checkpoint, if it is one; a new run has today's state there."""
        if self.off_epochs and state.num_train_epochs == sys.maxsize:
            raise ValueError(
                f"off_epochs={self.off_epochs} needs a training set with a length, which says the last epoch; of one "
                "without, give the transform p=until(epoch)"
            )
        self.next_epoch = int(state.epoch or 0)
        saved = state.stateful_callbacks.get(type(self).__name__)
        if saved is not None:
            self.collate.load_state_dict(saved["attributes"]["collate"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the collate the epoch, and whether it still mixes."""
        epoch = self.next_epoch  # counted: of a set without a length the Trainer knows no whole epochs
        self.next_epoch += 1
        self.collate.set_epoch(epoch)
        if self.off_epochs:
            self.collate.enabled = epoch < state.num_train_epochs - self.off_epochs
