"""Hugging Face's Trainer: plain evaluation, the same steps with accumulation, exact resume, and what it refuses."""

import math
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import ConvNextConfig, ConvNextForImageClassification, Trainer, TrainingArguments

from mixcollate import MixUp, MixupCollate, RandomErasing, SoftTarget, soft_cross_entropy
from mixcollate.integrations.transformers import MixupTrainer, soft_loss

QUIET = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_strategy": "no"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Where a Trainer without an ``output_dir`` makes one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(example, tmp_path):
    def main(folder="run", **options):
        return example["main"](str(tmp_path / folder), **{**QUIET, **options})

    return main


def test_it_learns_and_its_evaluation_is_plain(run):
    trainer = run()
    figures = trainer.evaluate()
    assert figures["eval_accuracy"] > 0.8
    labels = [batch["labels"] for batch in trainer.get_eval_dataloader()]
    assert all(one.ndim == 1 and not one.is_floating_point() for one in labels)
    assert trainer.model.config.problem_type is None  # the model's own loss would have made it multi-label
    assert trainer.data_collator.enabled  # again, for another run, though the last epoch was plain
    (batch, *_) = trainer.get_train_dataloader()
    assert batch["labels"].shape == (64, 10)


def test_accumulating_gives_the_same_steps(run):
    """Without smoothing or dropout, 2 x 32 images are one step on 64: only their plans differ, so those are off."""
    options = {"num_train_epochs": 1, "max_steps": 4, "max_grad_norm": 1e9}  # off_epochs=1: no plan mixes
    whole = run("whole", per_device_train_batch_size=64, **options)
    parts = run("parts", per_device_train_batch_size=32, gradient_accumulation_steps=2, **options)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    assert parts.state.log_history[-2]["train_loss"] == pytest.approx(
        whole.state.log_history[-2]["train_loss"], rel=1e-3
    )


def in_one_step(labels, parts, targets):
    """The gradient of one step on 8 images with these labels, in so many parts."""
    torch.manual_seed(0)
    data = [
        {"pixel_values": image, "labels": label} for image, label in zip(torch.randn(8, 3, 4, 4), labels, strict=True)
    ]
    options = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts, "max_steps": 1}
    arguments = TrainingArguments(**QUIET, **options, max_grad_norm=1e9, optim="sgd", learning_rate=1.0)
    collate = MixupCollate(MixUp(p=0, targets=targets), num_classes=None if targets == "sparse" else 3, seed=0)
    model = Linear()
    before = model.layer.weight.detach().clone()
    MixupTrainer(model, arguments, train_dataset=data, data_collator=collate).train()
    return before - model.layer.weight.detach()


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(48, 3)
        torch.nn.init.ones_(self.layer.weight)

    def forward(self, pixel_values, labels=None):
        return {"logits": self.layer(pixel_values.flatten(1))}


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2, 0, 1], [0, -100, 2, -100, 1, -100, 0, 1]])
def test_accumulating_counts_shares_whatever_the_targets_are(labels):
    """Also where some are missing, and not in each part as many."""
    steps = [in_one_step(labels, parts, targets) for parts in (1, 2, 4) for targets in ("dense", "sparse")]
    assert steps[0].abs().max() > 1e-3
    for step in steps[1:]:
        torch.testing.assert_close(step, steps[0])
    assert not in_one_step([-100] * 8, 2, "dense").any()  # nor is a step without any label NaN


def trainer_of(problem, outputs, labels, mixup, *, own=None, **options):
    """Of a ConvNeXt with so many outputs, on an image for each of the labels; ``own`` are options of the Trainer's."""
    torch.manual_seed(0)
    size = {"num_channels": 1, "patch_size": 2, "num_stages": 1, "hidden_sizes": [16], "depths": [1]}
    model = ConvNextForImageClassification(ConvNextConfig(num_labels=outputs, problem_type=problem, **size))
    data = [{"pixel_values": torch.randn(1, 8, 8), "labels": label} for label in labels]
    defaults = {**QUIET, "max_steps": 2, "max_grad_norm": 1e9, "optim": "sgd", "learning_rate": 0.1}
    arguments = TrainingArguments(**{**defaults, **options})
    own = {"data_collator": MixupCollate(mixup, seed=0), "train_dataset": data, "eval_dataset": data, **(own or {})}
    return MixupTrainer(model, arguments, **own)


@pytest.mark.parametrize(
    "problem, outputs, labels, targets",
    [
        ("multi_label_classification", 3, torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]], "dense"),
        ("multi_label_classification", 1, torch.arange(8.0)[:, None] % 2, "dense"),
        ("regression", 2, torch.arange(16.0).view(8, 2), "values"),
        ("regression", 1, torch.arange(8.0), "values"),
        (None, 1, torch.arange(8.0)[:, None], "values"),
    ],
)
def test_the_loss_is_that_of_the_models_problem_type(problem, outputs, labels, targets):
    """What the model's own is for plain labels; and with accumulation the mean over all of a step's."""
    whole, parts = (
        trainer_of(
            problem,
            outputs,
            labels,
            MixUp(p=0, targets=targets),
            per_device_train_batch_size=8 // parts,
            gradient_accumulation_steps=parts,
        )
        for parts in (1, 4)
    )
    ours = whole.evaluate()["eval_loss"]
    own = whole.model(torch.stack([sample["pixel_values"] for sample in whole.eval_dataset]), labels).loss
    assert ours == pytest.approx(own.item(), rel=1e-5)
    for trainer in (whole, parts):
        before = trainer.evaluate()["eval_loss"]
        trainer.train()
        assert trainer.evaluate()["eval_loss"] != before
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "problem, outputs, targets", [(None, 1, "dense"), ("regression", 3, "dense"), (None, 3, "values")]
)
def test_targets_that_do_not_fit_the_problem_type_are_refused(problem, outputs, targets):
    classes = outputs if targets == "dense" else None
    mixup, labels = MixUp(num_classes=classes, targets=targets), [0] * 8
    with pytest.raises(
        ValueError, match=r"targets must be 'values' if and only if problem_type is 'regression'.*num_labels="
    ):
        trainer_of(problem, outputs, labels, mixup)


@pytest.mark.parametrize(
    "problem, outputs, labels, targets, counted",
    [
        (None, 1, [0, 1, 2, 0, 1, 2, 0, -100], "dense", 7),
        (None, 1, -torch.arange(8.0), "values", 8),
        ("regression", 2, -torch.arange(16.0).view(8, 2), "values", 16),
        ("multi_label_classification", 3, torch.zeros(8, 3), "dense", 24),
    ],
)
def test_a_custom_loss_gets_the_number_of_labels(problem, outputs, labels, targets, counted):
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append((len(labels), float(num_items_in_batch)))
        return outputs.logits.mean()

    mixup = MixUp(p=0, num_classes=3 if isinstance(labels, list) else None, targets=targets)
    trainer_of(problem, outputs, labels, mixup, own={"compute_loss_func": loss}, max_steps=1).train()
    assert seen == [(8, counted)]


@pytest.mark.parametrize("ignore_index", [-100, 0])
def test_numbers_count_one_each_in_a_custom_loss(ignore_index):
    """Also if the configuration does not say that they are no classes; what else they could be is refused."""
    labels, seen = torch.tensor([0.5, 1, 2, 0.25, 1, 2, 3, math.nan]), []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append(float(num_items_in_batch))
        return outputs.logits.mean()

    mixup = MixUp(num_classes=3, ignore_index=ignore_index)
    trainer_of(None, 3, labels, mixup, own={"compute_loss_func": loss}).evaluate()
    assert seen == [7]
    with pytest.raises(TypeError, match="target must have an integer dtype to be class indices, got torch.float32"):
        trainer_of(None, 3, labels, mixup).evaluate()


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float32])
def test_rows_of_zeros_and_ones_are_one_label_each(kind):
    """In an evaluation, and in training on images that are erased, whose labels stay as they are."""
    numbers = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    losses = []
    for labels in (numbers, torch.eye(3)[numbers].to(kind)):
        trainer = trainer_of(None, 3, labels, RandomErasing(p=0), max_steps=1)
        losses.append([trainer.evaluate()["eval_loss"], trainer.train().training_loss])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_tokens_are_not_taken_for_rows():
    """Whose sum would be the number of labels that a custom loss is divided by: less than nothing, if some are -100."""

    def loss(outputs, labels, num_items_in_batch=None):
        return outputs.logits.sum() / num_items_in_batch

    labels = torch.tensor([[5, 3, -100], [2, 1, 1]])
    trainer = trainer_of(None, 3, labels, RandomErasing(p=0), own={"compute_loss_func": loss})
    for use in (trainer.train, trainer.evaluate):
        with pytest.raises(ValueError, match=r"integer labels \[B, K\] must be zeros and ones, got"):
            use()


def test_the_share_of_an_ignored_class_does_not_count():
    labels = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    trainer = trainer_of(None, 3, labels, MixUp(num_classes=3, ignore_index=1))
    logits = trainer.model(torch.stack([sample["pixel_values"] for sample in trainer.eval_dataset])).logits
    own = soft_cross_entropy(logits, labels, ignore_index=1)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(own.item(), rel=1e-5)


def test_batches_without_a_label_are_left_out_of_an_evaluation():
    trainer = trainer_of(None, 3, [-100] * 4 + [0, 1, 2, 0], MixUp(num_classes=3), per_device_eval_batch_size=4)
    (_, labelled) = trainer.get_eval_dataloader()
    with torch.no_grad():
        own = torch.nn.functional.cross_entropy(trainer.model(labelled["pixel_values"]).logits, labelled["labels"])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(own.item(), rel=1e-5)


def test_evaluation_takes_the_set_that_it_is_given():
    """And its batches are plain; without one, the Trainer's error leaves the training as it was."""
    trainer = trainer_of(None, 3, [0, 1, 2, 0], MixUp(num_classes=3), own={"eval_dataset": None})
    with pytest.raises(ValueError, match="eval_dataset"):
        trainer.evaluate()
    assert next(iter(trainer.get_train_dataloader()))["labels"].is_floating_point()
    other = trainer.train_dataset[:3]
    for loader in (trainer.get_eval_dataloader(other), trainer.get_test_dataloader(other)):
        assert [batch["labels"].tolist() for batch in loader] == [[0, 1, 2]]


def test_columns_are_looked_up_by_the_name_of_the_models_input():
    class Renamed(Linear):
        main_input_name = "image"

        def forward(self, image, labels=None):
            return super().forward(image)

    options = {"data_collator": MixupCollate(num_classes=3), "model": Renamed(), "args": TrainingArguments(**QUIET)}
    columns = {"image": [np.zeros((3, 4, 4), np.float32)] * 4, "labels": [0, 1, 2, 0]}
    MixupTrainer(train_dataset=Dataset.from_dict(columns), **options)
    with pytest.raises(ValueError, match=r"'image' is not among \['pixel_values', 'labels'\]"):
        MixupTrainer(train_dataset=Dataset.from_dict(columns).rename_column("image", "pixel_values"), **options)


@pytest.mark.parametrize("drops", [True, False])
def test_a_model_need_not_take_labels(drops):
    """Its loss does: the Trainer drops columns that a model does not take, and evaluates nothing without labels."""

    class Bare(Linear):
        def forward(self, pixel_values):
            return super().forward(pixel_values)

    data = [{"pixel_values": torch.full((3, 4, 4), 0.1 * k), "labels": k % 3} for k in range(8)]
    arguments = TrainingArguments(**QUIET, max_steps=1, remove_unused_columns=drops)
    losses = []
    for kind in (Bare, Linear):
        torch.manual_seed(0)
        collate = MixupCollate(num_classes=3, seed=0)
        trainer = MixupTrainer(kind(), arguments, train_dataset=data, eval_dataset=data, data_collator=collate)
        losses.append([trainer.train().training_loss, trainer.evaluate()["eval_loss"]])
    assert losses[0] == losses[1]
    arguments = TrainingArguments(**QUIET, label_names=[])  # said in so many words
    assert MixupTrainer(Bare(), arguments, train_dataset=data, data_collator=collate).label_names == []


def test_the_loss_of_a_plain_trainer_is_taken_for_none():
    """It counts images where that Trainer counts entries, and is a cross-entropy whatever the model's problem is."""
    labels = torch.eye(3)[[0, 1, 2, 0]]
    mixup = MixUp(p=0, num_classes=3)
    given = trainer_of("multi_label_classification", 3, labels, mixup, own={"compute_loss_func": soft_loss})
    none = trainer_of(None, 3, labels, mixup)
    assert given.train().training_loss == pytest.approx(none.train().training_loss, rel=1e-5)


def test_erasing_is_for_any_problem_and_values_for_any_model():
    for problem, labels in (("regression", [0, 1, 2, 3]), ("multi_label_classification", torch.eye(4)[:, :1])):
        trainer = trainer_of(problem, 1, labels, RandomErasing(p=0))
        assert math.isfinite(trainer.train().training_loss)
    arguments, collate = TrainingArguments(**QUIET), MixupCollate(MixUp(targets="values"))
    loss = MixupTrainer(Linear(), arguments, data_collator=collate).compute_loss_func
    logits = torch.tensor([[0.1, 0.2, 3.0]], dtype=torch.bfloat16)
    expected = (logits.float() - 1).square().mean()
    for labels in (torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bfloat16)):
        torch.testing.assert_close(loss({"logits": logits}, labels), expected)


def test_numbers_that_are_missing_do_not_count():
    """Neither in the squared error, nor in what it is divided by, nor in the gradient."""
    labels = torch.tensor([[0.5, math.nan], [math.nan, math.nan], [2.0, 1.0], [3.0, math.nan]])
    loss = trainer_of("regression", 2, labels, MixUp(p=0, targets="values")).compute_loss_func
    logits, known = torch.randn(4, 2, requires_grad=True), ~labels.isnan()
    expected = torch.nn.functional.mse_loss(logits[known], labels[known])
    (gradient,) = torch.autograd.grad(expected, logits)
    (ours,) = torch.autograd.grad(loss({"logits": logits}, labels), logits)
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    torch.testing.assert_close(ours, gradient)
    assert loss({"logits": logits}, labels[1:2].expand(4, 2)).isnan()
    trainer = trainer_of("regression", 1, labels[:, 0].repeat(2), MixUp(targets="values"))
    assert math.isfinite(trainer.train().training_loss)


def test_the_transforms_ignore_index_is_the_losses():
    for targets in ("dense", "sparse"):
        mixup = MixUp(num_classes=3, ignore_index=255, targets=targets)
        trainer = trainer_of(None, 3, [0, 1, 2, 255, 1, 2, 0, 1], mixup)
        trainer.train()
        assert 0 < trainer.evaluate()["eval_loss"] < 3


def test_what_the_loss_cannot_be_made_of_is_refused():
    class Pair(Linear):
        def forward(self, pixel_values, labels=None):
            return super().forward(pixel_values)["logits"], pixel_values

    data = [{"pixel_values": torch.randn(3, 4, 4), "labels": 0}] * 8
    options = {"data_collator": MixupCollate(num_classes=3), "train_dataset": data}
    with pytest.raises(TypeError, match=r"must return a mapping with 'logits' \(return_dict=True\), got tuple"):
        MixupTrainer(Pair(), TrainingArguments(**QUIET, max_steps=1), **options).train()
    options["train_dataset"] = [{"pixel_values": torch.randn(3, 4, 4), "label": 0}] * 8
    with pytest.raises(ValueError, match=r"targets at 'labels', got none; use rename_column\('label', 'labels'\)"):
        arguments = TrainingArguments(**QUIET, max_steps=1, remove_unused_columns=False)
        MixupTrainer(Lenient(), arguments, **options).train()
    with pytest.raises(ValueError, match="restore_callback_states_from_checkpoint must be False, got True"):
        MixupTrainer(Linear(), TrainingArguments(**QUIET, restore_callback_states_from_checkpoint=True), **options)


class Lenient(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = Linear()

    def forward(self, pixel_values, labels=None, label=None):
        return self.linear(pixel_values)


def test_a_plain_trainers_checkpoint_may_be_gone_on_from(tmp_path):
    labels, options = [0, 1, 2, 0, 1, 2, 0, 1], {"output_dir": str(tmp_path), "save_strategy": "epoch", "max_steps": -1}
    mixed = trainer_of(None, 3, labels, MixUp(num_classes=3), num_train_epochs=2, **options)
    first = Trainer(
        mixed.model, mixed.args, data_collator=mixed.data_collator.plain(), train_dataset=mixed.train_dataset
    )
    first.args.num_train_epochs = 1
    first.train()
    mixed.args.num_train_epochs = 2
    mixed.train(resume_from_checkpoint=True)
    assert mixed.data_collator.state_dict()["step"] == 1


def test_a_collate_that_was_turned_off_at_the_end_mixes_in_the_next_run():
    collate, labels = MixupCollate(MixUp(num_classes=3), seed=0), [0, 1, 2, 0, 1, 2, 0, 1]
    for off_epochs in (1, 0):
        own = {"data_collator": collate, "off_epochs": off_epochs}
        trainer_of(None, 3, labels, None, own=own, num_train_epochs=1, max_steps=-1).train()
        assert collate.enabled


def test_a_collate_that_the_user_has_turned_off_stays_so():
    collate = MixupCollate(MixUp(num_classes=3), seed=0)
    collate.enabled = False
    trainer_of(None, 3, [0, 1, 2, 0], None, own={"data_collator": collate}).train()
    assert not collate.enabled


def test_it_is_turned_off_for_as_many_epochs_as_are_given():
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append(collate.enabled)
        return outputs.logits.mean()

    collate = MixupCollate(MixUp(num_classes=3), seed=0)
    own = {"data_collator": collate, "off_epochs": 2, "compute_loss_func": loss}
    trainer_of(None, 3, [0, 1, 2, 0], None, own=own, num_train_epochs=3, max_steps=-1).train()
    assert seen == [True, False, False]
    with pytest.raises(ValueError, match="off_epochs must be a whole number of at least 0, got -1"):
        trainer_of(None, 3, [0, 1, 2, 0], None, own={**own, "off_epochs": -1})


@pytest.mark.parametrize(("step", "epochs"), [(3, [0, 1, 1, 1, 1]), (6, [1, 1])])
def test_a_resumed_run_goes_on_in_its_epoch(tmp_path, step, epochs):
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    options = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
    trainer_of(None, 3, labels, MixUp(num_classes=3), max_steps=8, **options).train()
    asked = []
    mixup = MixUp(p=lambda epoch: asked.append(epoch) or 1.0, num_classes=3)
    resumed = trainer_of(None, 3, labels, mixup, max_steps=8, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert asked == epochs and resumed.data_collator.state_dict()["step"] == 8


def test_a_collate_that_was_turned_off_mixes_after_an_interruption():
    def interrupted(outputs, labels, num_items_in_batch=None):
        assert not collate.enabled
        raise KeyboardInterrupt

    collate = MixupCollate(MixUp(num_classes=3), seed=0)
    own = {"data_collator": collate, "off_epochs": 1, "compute_loss_func": interrupted}
    with pytest.raises(KeyboardInterrupt):
        trainer_of(None, 3, [0, 1, 2, 0], None, own=own, num_train_epochs=1, max_steps=-1).train()
    assert collate.enabled


def test_a_run_with_a_new_model_starts_anew():
    """As each trial of a search for hyper-parameters does, which a run with the same ones repeats."""
    seen = []

    class Watching(MixupTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            seen.append(inputs["labels"])
            return super().training_step(model, inputs, *args, **kwargs)

    data = [{"pixel_values": torch.randn(3, 4, 4), "labels": k % 3} for k in range(16)]
    collate = MixupCollate(num_classes=3, seed=1)
    collate.load_state_dict({"seed": 1, "step": 5})
    options = {"model_init": Linear, "train_dataset": data, "data_collator": collate}
    trainer = Watching(args=TrainingArguments(**QUIET, num_train_epochs=2), **options)
    for _ in range(2):
        trainer.train()
        assert collate.state_dict()["step"] == 9
    assert all(map(torch.equal, seen[:4], seen[4:]))


def test_sparse_targets_are_not_for_a_plain_trainer():
    sparse = SoftTarget(torch.zeros(8, 2, dtype=torch.int64), torch.full((8, 2), 0.5))
    with pytest.raises(TypeError, match="got a SoftTarget; use MixupTrainer"):
        soft_loss({"logits": torch.randn(8, 10)}, sparse)


WHOLE = {"dispatch_batches": False}


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([{"pixel_values": torch.randn(3, 4, 4), "labels": 0}] * 8)


def test_epochs_of_a_set_without_a_length_are_counted():
    epochs = []
    collate = MixupCollate(MixUp(p=lambda epoch: epochs.append(epoch) or 1.0), num_classes=3, seed=0)
    arguments = TrainingArguments(**QUIET, per_device_train_batch_size=4, max_steps=6, accelerator_config=WHOLE)
    MixupTrainer(Linear(), arguments, train_dataset=Endless(), data_collator=collate).train()
    assert epochs == [0, 0, 1, 1, 2, 2]
    trainer = MixupTrainer(Linear(), arguments, train_dataset=Endless(), data_collator=collate, off_epochs=1)
    with pytest.raises(ValueError, match=r"off_epochs=1 requires a training set with a length"):
        trainer.train()


def test_batches_that_accelerate_would_cut_are_refused(monkeypatch):
    """Other than tensors it cannot cut; it does so for several processes, where a set has no length."""

    def loaders(eager=False, world=2, data=None, **options):
        data = data or Endless()
        collate = MixupCollate(num_classes=3, eager=eager)
        arguments = TrainingArguments(**QUIET, max_steps=6, **options)
        trainer = MixupTrainer(Linear(), arguments, train_dataset=data, eval_dataset=data, data_collator=collate)
        monkeypatch.setattr(TrainingArguments, "world_size", world)
        return [trainer.get_train_dataloader, trainer.get_eval_dataloader, lambda: trainer.get_test_dataloader(data)]

    for make in loaders():
        with pytest.raises(ValueError, match=r"data_collator must be a MixupCollate\(eager=True\) .* got eager=False;"):
            make()
    for allowed in ({"eager": True}, {"world": 1}, {"data": list(Endless())}, {"accelerator_config": WHOLE}):
        assert all(next(iter(make())) for make in loaders(**allowed))


def test_the_loss_counts_images_where_the_trainer_counts_entries():
    logits, rows = torch.randn(8, 10), torch.randn(8, 10).softmax(1)
    mean = torch.nn.functional.cross_entropy(logits, rows)
    for labels in (rows, rows.argmax(1)):
        mean = torch.nn.functional.cross_entropy(logits, labels)
        counted = 4 * labels.numel()  # of four such batches
        torch.testing.assert_close(soft_loss({"logits": logits}, labels), mean)
        torch.testing.assert_close(soft_loss({"logits": logits}, labels, torch.tensor(counted)), mean / 4)
        torch.testing.assert_close(soft_loss({"logits": logits}, labels, counted), mean / 4)
    missing = rows.clone()
    missing[:2] = math.nan
    torch.testing.assert_close(
        soft_loss({"logits": logits}, missing), torch.nn.functional.cross_entropy(logits[2:], rows[2:])
    )
    maps, pixels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    mean = torch.nn.functional.cross_entropy(maps, pixels)
    for labels in (pixels, torch.nn.functional.one_hot(pixels, 3).movedim(3, 1).float()):
        torch.testing.assert_close(soft_loss({"logits": maps}, labels), mean)
    assert soft_loss({"logits": logits[:0]}, rows[:0]).isnan()
    nothing = logits.requires_grad_(), torch.full((8,), -100)
    assert soft_loss({"logits": logits}, nothing[1]).isnan()
    soft_loss({"logits": nothing[0]}, nothing[1], torch.tensor(0)).backward()
    assert not logits.grad.any()


def test_a_checkpoint_in_mid_epoch_goes_on_exactly(run, tmp_path):
    options = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 10, "max_steps": 20}
    whole = run("steps", **options)
    resumed = run("steps", resume=str(tmp_path / "steps" / "checkpoint-10"), **options)
    assert resumed.data_collator.state_dict() == whole.data_collator.state_dict() == {"seed": 0, "step": 20}
    assert all(map(torch.equal, whole.model.parameters(), resumed.model.parameters()))


def test_images_of_a_set_transform(example, tmp_path):
    pixels, labels = torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8), list(range(10)) * 3 + [0, 1]
    data = Dataset.from_dict({"index": list(range(32)), "label": labels})

    def transform(rows):
        return {"pixel_values": [pixels[k] for k in rows["index"]], "labels": rows["label"]}

    model = example["main"](str(tmp_path), **QUIET, max_steps=1).model
    options = {"model": model, "train_dataset": data.with_transform(transform)}
    options["data_collator"] = MixupCollate(num_classes=10, mean=0.31, std=0.38)
    arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, **QUIET)
    batch = next(iter(MixupTrainer(args=arguments, **options).get_train_dataloader()))
    assert batch["pixel_values"].dtype == torch.float32 and batch["labels"].shape == (8, 10)

    with pytest.raises(ValueError, match="'pixel_values' is not among .*remove_unused_columns=False"):
        MixupTrainer(args=TrainingArguments(str(tmp_path), **QUIET), **options)
    smoothing = TrainingArguments(str(tmp_path), remove_unused_columns=False, label_smoothing_factor=0.1, **QUIET)
    with pytest.raises(ValueError, match="label_smoothing_factor must be 0, got 0.1; pass label_smoothing to the tr"):
        MixupTrainer(args=smoothing, **options)
    message = r"data_collator must be a MixupCollate, got function; .* MixupCollate\(collate_fn="
    with pytest.raises(TypeError, match=message):
        MixupTrainer(args=arguments, **{**options, "data_collator": None})


def test_the_format_that_int64_pixels_are_told_to_take_keeps_labels_above_255():
    """``dtype=torch.uint8`` for all columns would make 44 of class 300."""
    data = Dataset.from_dict({"pixel_values": [np.full((1, 4, 4), 200, np.uint8)] * 2, "labels": [1, 300]})
    with pytest.raises((TypeError, ValueError), match="int64") as raised:
        MixupCollate(num_classes=1000)(list(data.with_format("torch")))
    advice = re.search(r"\.(with_format\(.*?\))", str(raised.value))[1]
    images, targets = MixupCollate(MixUp(p=0), num_classes=1000)(list(eval(f"data.{advice}"))).mix().values()
    assert images.dtype == torch.uint8 and targets.argmax(1).tolist() == [1, 300]
