"""``MixupTrainer``: a Trainer of Hugging Face's that mixes its training batches, and those alone."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mixcollate.checks import check_count
from mixcollate.collate import MixupCollate
from mixcollate.losses import soft_binary_cross_entropy, soft_cross_entropy
from mixcollate.targets import SoftTarget


class MixupTrainer(Trainer):
    """``Trainer`` with a :class:`~mixcollate.MixupCollate` as its ``data_collator``.

    The loss follows the ``problem_type`` of the model's configuration: soft cross-entropy (also where it says none and
    there are several outputs, of which the model's own loss would make a multi-label problem), soft binary
    cross-entropy, or the squared error of ``targets="values"``. With accumulation each step's loss is the mean over
    all its labels. Evaluation and prediction take ``collate.plain()``. Checkpoints hold the collate's place in its
    stream, so a run with ``seed=`` and a training set with a length resumes exactly (of one without, the Trainer takes
    the batches to be skipped, and mixes them). Samples are dicts with what the model's ``forward`` takes
    (``pixel_values``, usually) and ``labels``.

    Args:
        args: as the Trainer's.
        off_epochs: how many epochs at the end are trained on plain images.
        kwargs: as the Trainer's; ``data_collator`` must be a ``MixupCollate``.
    """

    data_collator: Any
    compute_loss_func: Any

    def __init__(self, *args: Any, off_epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        collate = self.data_collator
        if not isinstance(collate, MixupCollate):
            raise TypeError(f"data_collator must be a MixupCollate, got {type(collate).__name__}")
        if self.args.restore_callback_states_from_checkpoint:
            raise ValueError(
                "restore_callback_states_from_checkpoint must be False, got True: the Trainer would make the collate's "
                "callback anew, without its collate; the collate's place is restored in any case"
            )
        own = self.compute_loss_func not in (None, soft_loss)
        self._problem = _problem_of(
            None if self.compute_loss_func is soft_loss else self.model, collate, refuses=not own
        )
        if not own:
            self.compute_loss_func = partial(_mean_loss, self._problem)
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
        """What the Trainer divides a step's losses by: what counts of its labels, in place of all their entries."""
        counted = [
            {**batch, "labels": _Counted(self._problem.counted(batch["labels"]))} if "labels" in batch else batch
            for batch in batch_samples
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


class _Counted(NamedTuple):
    """Stands for labels whose entries the Trainer counts by ``labels.ne(-100).sum()``: it gets what counts of them."""

    weights: Tensor

    def ne(self, ignored: int) -> Tensor:
        return self.weights


class Problem(NamedTuple):
    """A kind of labels.

    Attributes:
        loss: the sum of the losses of logits and labels.
        counted: how much each entry of the labels counts in their mean.
    """

    loss: Callable[[Tensor, Any], Tensor]
    counted: Callable[[Any], Tensor]


def _problem(name: str, ignore_index: int = -100) -> Problem:
    """The one of a ``problem_type``."""
    if name == "regression":
        return Problem(_squared_error, _annotated)
    if name == "multi_label_classification":
        return Problem(partial(soft_binary_cross_entropy, reduction="sum"), _annotated)
    loss = partial(soft_cross_entropy, ignore_index=ignore_index, reduction="sum")
    return Problem(loss, partial(_shares, ignore_index=ignore_index))


def _shares(labels: Tensor | SoftTarget, *, ignore_index: int) -> Tensor:
    if isinstance(labels, SoftTarget):
        return labels.known(ignore_index).shares
    return labels.nan_to_num() if labels.is_floating_point() else labels.ne(ignore_index)


def _annotated(labels: Tensor) -> Tensor:
    return ~labels.isnan()


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Of ``[B, 1]`` or ``[B, K]``, where labels may be ``[B]``."""
    return F.mse_loss(logits.float().reshape(labels.shape), labels.float(), reduction="sum")


def _problem_of(model: Any, collate: MixupCollate, *, refuses: bool) -> Problem:
    """What the model is trained for: as its configuration says or, as in transformers, by its number of outputs.

    Where there is none, the targets say it. What does not fit is refused, unless somebody else makes the loss of it.
    """
    config = getattr(model, "config", None)
    outputs = getattr(config, "num_labels", None)
    targets = {rule.targets for rule in collate.rules}
    values = targets == {"values"}
    by_number = _name(values if outputs is None else outputs == 1)
    name = getattr(config, "problem_type", None) or by_number
    fits = not targets or values == (name == "regression")
    if refuses and not fits:
        raise ValueError(
            "targets must be 'values' where problem_type is 'regression', as it is by default for one output, and only "
            f"there; got {' and '.join(map(repr, targets))}, {name!r} and num_labels={outputs}: set problem_type in "
            "the model's configuration ('multi_label_classification' for one logit), or give a compute_loss_func"
        )
    return _problem(name if fits else _name(values), *[rule.ignore_index for rule in collate.rules[:1]])


def _name(is_regression: bool) -> str:
    return "regression" if is_regression else "single_label_classification"


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
    count = None if num_items_in_batch is None else num_items_in_batch / entries
    return _mean_loss(_problem("single_label_classification"), outputs, labels, count)


def _mean_loss(
    problem: Problem, outputs: Any, labels: Tensor | SoftTarget | None, num_items_in_batch: Tensor | float | None = None
) -> Tensor:
    """The losses' sum by what counts of the labels, of this batch or as counted over all of a step's."""
    if not isinstance(outputs, dict):  # of a tuple the Trainer would take all but the first for predictions
        raise TypeError(
            f"the model must return a mapping with 'logits' (return_dict=True), got {type(outputs).__name__}"
        )
    if labels is None:
        raise ValueError("batches must have their targets at 'labels', got none: rename_column('label', 'labels')")
    count = problem.counted(labels).sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
    mean = problem.loss(outputs["logits"], labels) / count.masked_fill(count == 0, 1)
    # without a label a training step has no loss and no gradient; a batch of an evaluation, being NaN, is left out
    return mean if mean.requires_grad and num_items_in_batch is not None else mean.masked_fill(count == 0, math.nan)


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
        # a checkpoint of another Trainer has none, and then the Trainer could not save its own
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
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

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn the collate on again, which another run may have, too."""
        if self.off_epochs:
            self.collate.enabled = True
