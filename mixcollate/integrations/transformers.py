"""``MixupTrainer``: a Hugging Face Trainer that mixes its training batches, but not those of evaluation."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mixcollate.checks import check_count
from mixcollate.collate import MixupCollate
from mixcollate.losses import counted_target, soft_binary_cross_entropy, soft_cross_entropy
from mixcollate.targets import SoftTarget, check_rows


class MixupTrainer(Trainer):
    """``Trainer`` with a :class:`~mixcollate.MixupCollate` as its ``data_collator``.

    The loss follows the ``problem_type`` of the model's configuration: soft cross-entropy, soft binary cross-entropy,
    or the squared error for ``targets="values"``. If the configuration has none and there are several outputs, it is
    soft cross-entropy, whereas the model's own loss would assume a multi-label problem. With gradient accumulation the
    loss of a step is the mean over all its labels. Evaluation and prediction use ``collate.plain()``. Checkpoints hold
    the collate's position in its stream, so a run with ``seed=`` and a training set with a length resumes exactly (for
    a set without one, the Trainer draws and mixes the batches that it skips). With ``model_init`` every run, such as a
    trial of ``hyperparameter_search``, starts from the collate's initial state. Samples are dicts with the arguments of
    the model's ``forward`` (usually ``pixel_values``) and ``labels``.

    Args:
        args: positional arguments of the Trainer.
        off_epochs: number of final epochs to train on plain images.
        kwargs: keyword arguments of the Trainer; ``data_collator`` must be a ``MixupCollate``.
    """

    data_collator: Any
    compute_loss_func: Any
    label_names: Any

    def __init__(self, *args: Any, off_epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        collate = self.data_collator
        if not isinstance(collate, MixupCollate):
            raise TypeError(
                f"data_collator must be a MixupCollate, got {type(collate).__name__}; one of your own, which makes "
                "batches of samples, goes into it: MixupCollate(collate_fn=...)"
            )
        if self.args.restore_callback_states_from_checkpoint:
            raise ValueError(
                "restore_callback_states_from_checkpoint must be False, got True: the Trainer would recreate the "
                "collate's callback without its collate; the collate's state is restored in any case"
            )
        own = self.compute_loss_func not in (None, soft_loss)
        self._problem = _problem_of(
            None if self.compute_loss_func is soft_loss else self.model, collate, refuses=not own
        )
        if not own:
            self.compute_loss_func = partial(_mean_loss, self._problem)
        if not self.label_names and self.args.label_names is None:
            self.label_names = ["labels"]  # the loss takes them: forward need not have that argument
        if self.args.label_smoothing_factor:
            smoothing = self.args.label_smoothing_factor
            raise ValueError(
                f"label_smoothing_factor must be 0, got {smoothing}; pass label_smoothing to the transform instead"
            )
        name = getattr(self.model, "main_input_name", "pixel_values")
        columns = getattr(self.train_dataset, "column_names", None)
        if self.args.remove_unused_columns and columns and name not in columns:
            raise ValueError(
                f"the Trainer drops every column that is not an argument of the model's forward, and {name!r} is not "
                f"among {columns}; rename the column, or use set_transform and TrainingArguments("
                "remove_unused_columns=False)"
            )
        self.add_callback(MixupCallback(collate, check_count("off_epochs", off_epochs, least=0)))
        self._off_epochs, self._start = off_epochs, collate.state_dict()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and turn mixing on again however the run ended: another run may use the same collate."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._off_epochs:
                self.data_collator.enabled = True

    def call_model_init(self, trial: Any = None) -> Any:
        """Make a new model for a new run, such as a trial of a search, and reset the collate to its initial state."""
        if hasattr(self, "_start"):
            self.data_collator.load_state_dict(self._start)
        return super().call_model_init(trial)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The Trainer's, with batches that are mixed when they are moved."""
        return self._uncut(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The Trainer's, with plain batches."""
        with self._plain():
            return self._uncut(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """The Trainer's, with plain batches."""
        with self._plain():
            return self._uncut(super().get_test_dataloader(test_dataset))

    def _uncut(self, loader: Any) -> DataLoader[Any]:
        """The loader, unless its batches would be cut into parts for several processes, which takes tensors."""
        if isinstance(loader, DataLoaderDispatcher) and self.args.world_size > 1 and not self.data_collator.eager:
            raise ValueError(
                "data_collator must be a MixupCollate(eager=True) if the first process cuts batches into parts for "
                "others, as it does for sets without a length, got eager=False; or set TrainingArguments("
                "accelerator_config={'dispatch_batches': False})"
            )
        return cast(DataLoader[Any], loader)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """What the Trainer divides a step's losses by: the labels that count, rather than all their entries."""
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
    """Stand-in for labels, which the Trainer counts by ``labels.ne(-100).sum()``: that gives the sum of ``weights``."""

    weights: Tensor

    def ne(self, ignored: int) -> Tensor:
        return self.weights


class Problem(NamedTuple):
    """How a kind of labels is trained.

    Attributes:
        loss: sum of the losses, given logits and labels.
        counted: weight of each entry of the labels in the mean.
    """

    loss: Callable[[Tensor, Any], Tensor]
    counted: Callable[[Any], Tensor]


def _problem(name: str, ignore_index: int = -100) -> Problem:
    """The :class:`Problem` for a ``problem_type``."""
    if name == "regression":
        return Problem(_squared_error, _annotated)
    if name == "multi_label_classification":
        return Problem(partial(soft_binary_cross_entropy, reduction="sum"), _annotated)
    loss = partial(soft_cross_entropy, ignore_index=ignore_index, reduction="sum")
    return Problem(loss, partial(_shares, ignore_index=ignore_index))


def _shares(labels: Tensor | SoftTarget, *, ignore_index: int) -> Tensor:
    """The shares that count: those of rows ``[B, K]``, also of whole zeros and ones, or 1 for each class index.

    So does each number ``[B]`` of which a custom loss is made.
    """
    if isinstance(labels, Tensor) and (labels.ndim < 2 or (labels.ndim > 2 and not labels.is_floating_point())):
        return labels.ne(ignore_index) & _annotated(labels)
    if isinstance(labels, Tensor) and not labels.is_floating_point():
        check_rows(labels)  # the sum of tokens [B, T] would be taken for their number
    counted = counted_target(labels, ignore_index)
    return counted.shares if isinstance(counted, SoftTarget) else counted.nan_to_num()


def _annotated(labels: Tensor) -> Tensor:
    return ~labels.isnan()


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of squared errors of logits ``[B, 1]`` or ``[B, K]``; labels may be ``[B]``, and NaN if they are missing."""
    errors = logits.float().reshape(labels.shape) - labels.float()
    return errors.masked_fill(labels.isnan(), 0.0).square().sum()


def _problem_of(model: Any, collate: MixupCollate, *, refuses: bool) -> Problem:
    """The problem that the model is trained for: from its configuration or, as in transformers, its number of outputs.

    A model without a configuration is trained as the targets require. If ``refuses``, targets must fit the problem.
    """
    config = getattr(model, "config", None)
    outputs = getattr(config, "num_labels", None)
    targets = {rule.targets for rule in collate.rules}
    values = targets == {"values"}
    by_number = _problem_type(values if outputs is None else outputs == 1)
    name = getattr(config, "problem_type", None) or by_number
    fits = not targets or values == (name == "regression")
    if refuses and not fits:
        raise ValueError(
            "targets must be 'values' if and only if problem_type is 'regression', which is the default for one "
            f"output; got {' and '.join(map(repr, targets))}, {name!r} and num_labels={outputs}: set problem_type in "
            "the model's configuration ('multi_label_classification' for one logit), or pass a compute_loss_func"
        )
    return _problem(name if fits else _problem_type(values), *[rule.ignore_index for rule in collate.rules[:1]])


def _problem_type(is_regression: bool) -> str:
    """The ``problem_type`` of a model, as transformers names it."""
    return "regression" if is_regression else "single_label_classification"


def soft_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy with soft or plain labels, as the ``compute_loss_func`` of a plain Trainer.

    With gradient accumulation the Trainer divides by the number of labels of the whole step. It counts all entries of
    soft labels, ``num_classes`` for each image, even if they are missing; ``MixupTrainer`` counts their shares.

    Raises:
        TypeError: for sparse targets, which a plain Trainer cannot count.
    """
    if isinstance(labels, SoftTarget):
        raise TypeError("labels must be rows or class indices in a plain Trainer, got a SoftTarget; use MixupTrainer")
    entries = labels[0].numel() if len(labels) else 1
    count = None if num_items_in_batch is None else num_items_in_batch / entries
    return _mean_loss(_problem("single_label_classification"), outputs, labels, count)


def _mean_loss(
    problem: Problem, outputs: Any, labels: Tensor | SoftTarget | None, num_items_in_batch: Tensor | float | None = None
) -> Tensor:
    """The sum of the losses divided by the labels that count, in this batch or in all batches of the step."""
    if not isinstance(outputs, dict):  # the Trainer would take all but the first item of a tuple for predictions
        raise TypeError(
            f"the model must return a mapping with 'logits' (return_dict=True), got {type(outputs).__name__}"
        )
    if labels is None:
        raise ValueError("batches must have their targets at 'labels', got none; use rename_column('label', 'labels')")
    count = problem.counted(labels).sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
    mean = problem.loss(outputs["logits"], labels) / count.masked_fill(count == 0, 1)
    # without labels, a training step gets no gradient, and a batch of an evaluation gets NaN, which is left out
    return mean if mean.requires_grad and num_items_in_batch is not None else mean.masked_fill(count == 0, math.nan)


class MixupCallback(TrainerCallback, ExportableState):
    """Set the collate's epoch, turn it off at the end, and save its state in checkpoints."""

    def __init__(self, collate: MixupCollate, off_epochs: int = 0) -> None:
        self.collate, self.off_epochs, self.next_epoch = collate, off_epochs, 0

    def state(self) -> dict[str, Any]:
        """The state that the Trainer writes into a checkpoint's ``trainer_state.json``."""
        return {"args": {}, "attributes": {"collate": self.collate.state_dict()}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Resume from the checkpoint, if there is one."""
        if self.off_epochs and state.num_train_epochs == sys.maxsize:
            raise ValueError(
                f"off_epochs={self.off_epochs} requires a training set with a length, which tells the last epoch; for "
                "one without, pass p=until(epoch) to the transform"
            )
        self.next_epoch = int(state.epoch or 0)
        # absent from the checkpoint of another Trainer; without it this one could not save its state
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self.collate.load_state_dict(saved["attributes"]["collate"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the collate's epoch, and whether it still mixes."""
        epoch = self.next_epoch  # counted here: for a set without a length the Trainer does not count whole epochs
        self.next_epoch += 1
        self.collate.set_epoch(epoch)
        if self.off_epochs:
            self.collate.enabled = epoch < state.num_train_epochs - self.off_epochs
