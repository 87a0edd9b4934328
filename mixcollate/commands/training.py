"""One training run, from its settings to its outcome: the engine of ``mixcollate demo`` and ``mixcollate compare``."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from mixcollate.collate import MixupCollate
from mixcollate.commands import Refusal, refusing
from mixcollate.commands.calibration import calibration_error, reliability, tempered
from mixcollate.commands.data import BATCH_SIZES, PIXELS, Data, load, subset
from mixcollate.commands.networks import ARCHITECTURES, resnet50, transfer
from mixcollate.commands.recipes import parse
from mixcollate.loader import DeviceLoader
from mixcollate.losses import soft_cross_entropy

STARTS = ("random", "rest", "first-half", "pretrained")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The settings of one training run; equal settings give equal outcomes.

    Args:
        method: ``"plain"``, or what :func:`~mixcollate.commands.recipes.parse` understands.
        seed: seed of the weights, the order of images, the wrong labels, the subset of the data and the mixing.
        data: name of the dataset.
        pixels: height and width of its images; 0: the data's own.
        share: share of the training images to use, in (0, 1].
        classes: ``"all"`` or ``"second-half"``.
        label_noise: share of wrong training labels.
        architecture: name of the network.
        start: ``"random"``; ``"rest"`` or ``"first-half"``: trained for ``start_epochs``, plain and with right labels,
            on the training images that ``share`` leaves over, or on the first half of the classes; ``"pretrained"``:
            torchvision's ImageNet weights.
        epochs: length of the training.
        warm_up: epochs of plain images before mixing starts.
        off_epoch: epoch at which mixing ends; negative: counted from the end.
        batch_size: images in a batch; 0: the data's own.
        learning_rate: peak learning rate; 0: that of the architecture.
    """

    method: str
    seed: int
    data: str = "digits"
    pixels: int = 0
    share: float = 1.0
    classes: str = "all"
    label_noise: float = 0.0
    architecture: str = "small"
    start: str = "random"
    start_epochs: int = 20
    epochs: int = 40
    warm_up: int = 0
    off_epoch: int | None = None
    batch_size: int = 0
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.method != "plain":
            parse(self.method)
        if self.start == "rest" and self.share >= 1:
            raise ValueError(f"share must leave images over to start from the rest, got {self.share}; try 0.5")
        if self.start == "first-half" and self.classes != "second-half":
            raise ValueError(f"classes must be second-half to start from the first half, got {self.classes}")
        if self.start == "pretrained" and self.architecture != "resnet50":
            raise ValueError(f"architecture must be resnet50 to start pretrained, got {self.architecture}")
        rate = 0.003 if self.architecture == "small" else 0.01 if self.start == "pretrained" else 0.1
        settled = {
            "pixels": self.pixels or PIXELS[self.data],
            "batch_size": self.batch_size or BATCH_SIZES[self.data],
            "learning_rate": self.learning_rate or rate,
        }
        for name, value in settled.items():  # so that results record them
            object.__setattr__(self, name, value)

    def mixes_in(self, epoch: int) -> bool:
        """Whether the images of this epoch are mixed."""
        end = self.epochs if self.off_epoch is None else self.off_epoch
        return self.method != "plain" and self.warm_up <= epoch < (end + self.epochs if end < 0 else end)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Measures on the test set; shares and errors are in per cent, the loss is in nats.

    For the tempered ones, logits are divided by the temperature, which was fitted on other images.
    """

    accuracy: float
    confidence: float
    calibration_error: float
    loss: float
    temperature: float = 1.0
    tempered_calibration_error: float = 0.0
    tempered_loss: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Epochs done, and the accuracy after them."""
    reliability: list[tuple[int, float, float]] = field(default_factory=list)
    """For each bin: number of predictions, their mean confidence, their accuracy."""
    tempered_reliability: list[tuple[int, float, float]] = field(default_factory=list)


@lru_cache(maxsize=4)
def data_of(name: str, root: Path, pixels: int) -> Data:
    """The dataset, read once for all runs."""
    return load(name, root, pixels)


def execute(
    run: Run,
    root: Path,
    *,
    device: torch.device,
    workers: int = 0,
    points: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> Outcome:
    """Carry out one run: train, and evaluate on the test set.

    Args:
        run: the settings.
        root: folder of the data.
        device: where to train; on a GPU in bfloat16 and channels_last.
        workers: number of processes that load data.
        points: how often to measure accuracy during training, at most.
        advance: called after each epoch.
    """
    data = subset(
        data_of(run.data, root, run.pixels),
        share=run.share,
        classes=run.classes,
        label_noise=run.label_noise,
        seed=run.seed,
    )
    return train(run, data, root, device, workers, points, advance)[1]


def try_out(run: Run, root: Path) -> None:
    """Refuse a method that cannot mix images of these data, before anything is trained."""
    data = subset(data_of(run.data, root, run.pixels), share=run.share, classes=run.classes)
    samples = [data.train[0]] * 2
    with refusing(f"--methods {run.method} at --pixels {run.pixels}", ValueError, TypeError):
        collate = loaders(run, data, torch.device("cpu"), 0)[0].collate_fn
        for epoch in {0, run.epochs - 1}:  # a bad schedule is bad in one of them
            collate.set_epoch(epoch)
            collate(samples).mix()


def train(
    run: Run, data: Data, root: Path, device: torch.device, workers: int, points: int, advance: Callable[[], object]
) -> tuple[nn.Module, Outcome]:
    """Train a network; return it and its outcome."""
    torch.manual_seed(run.seed)
    channels, classes = len(data.mean), len(data.classes)
    if run.start == "pretrained":
        model = resnet50(channels, classes, pretrained=True)
    else:
        model = ARCHITECTURES[run.architecture](channels, classes)
    if run.start in ("rest", "first-half"):
        transfer(_trained(_before(run), run.start == "rest", root, device, workers), model)
    model = model.to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    loader, test = loaders(run, data, device, workers)
    optimizer = _optimizer(run, model)
    peak = optimizer.param_groups[0]["lr"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=run.epochs * len(loader))
    torch.manual_seed(run.seed)  # for random augmentations of the dataset
    every, curve = -(-run.epochs // points), []
    for epoch in range(run.epochs):
        loader.collate_fn.enabled = run.mixes_in(epoch)
        loader.set_epoch(epoch)
        model.train()
        for images, targets in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = soft_cross_entropy(model(images), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        if (epoch + 1) % every == 0 and epoch + 1 < run.epochs:
            logits, labels = predict(model, test)
            curve.append((epoch + 1, _per_cent((logits.argmax(1) == labels).double().mean())))
        advance()
    outcome = judge(*predict(model, test))
    return model, replace(outcome, curve=[*curve, (run.epochs, outcome.accuracy)])


def _before(run: Run) -> Run:
    """The run that trains the network that ``run`` starts from."""
    kept = {"share": run.share, "classes": run.classes} if run.start == "rest" else {"classes": "first-half"}
    same = {
        name: getattr(run, name) for name in ("seed", "data", "pixels", "architecture", "batch_size", "learning_rate")
    }
    return Run(method="plain", epochs=run.start_epochs, **kept, **same)


@lru_cache(maxsize=4)
def _trained(run: Run, rest: bool, root: Path, device: torch.device, workers: int) -> nn.Module:
    """A network to start from, trained once for all runs that start from it."""
    data = subset(data_of(run.data, root, run.pixels), share=run.share, rest=rest, classes=run.classes, seed=run.seed)
    return train(run, data, root, device, workers, 1, lambda: None)[0]


def loaders(run: Run, data: Data, device: torch.device, workers: int) -> tuple[DeviceLoader, DeviceLoader]:
    """Loaders of the training set, shuffled and mixed, and of the test set."""
    mixed = MixupCollate(
        parse("mixup" if run.method == "plain" else run.method),
        num_classes=len(data.classes),
        mean=data.mean,
        std=data.std,
        memory_format=torch.channels_last if device.type == "cuda" else None,
        seed=run.seed,
    )

    def loader(dataset: Dataset[Any], batch_size: int, **how: Any) -> DeviceLoader:
        how |= {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": device.type == "cuda"}
        return DeviceLoader(DataLoader(dataset, batch_size, **how), device)

    size = run.batch_size
    # batch normalisation needs more than the single image that the last batch may have
    shuffled = {"shuffle": True, "generator": torch.Generator().manual_seed(run.seed)}
    shuffled["drop_last"] = len(data.train) > size  # type: ignore[arg-type]
    return loader(data.train, size, collate_fn=mixed, **shuffled), loader(data.test, 500, collate_fn=mixed.plain())


def _optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    if run.architecture == "small":
        return torch.optim.AdamW(model.parameters(), run.learning_rate, weight_decay=0.05)
    return torch.optim.SGD(model.parameters(), run.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


@torch.inference_mode()
def predict(model: nn.Module, loader: DeviceLoader) -> tuple[Tensor, Tensor]:
    """Logits float32 ``[N, classes]`` and labels ``[N]``, on the CPU."""
    model.eval()
    cuda = loader.device.type == "cuda"
    logits, labels = [], []
    for images, numbers in loader:
        with torch.autocast(loader.device.type, torch.bfloat16, enabled=cuda):
            logits.append(model(images).float().cpu())
        labels.append(numbers.cpu())
    return torch.cat(logits), torch.cat(labels)


def judge(logits: Tensor, labels: Tensor) -> Outcome:
    """Evaluate predictions."""
    if not logits.isfinite().all():
        raise Refusal("training has diverged: the network's outputs are not finite; try a lower --learning-rate")
    mended, temperature = tempered(logits, labels)
    before, after = logits.double().softmax(1), mended.double().softmax(1)
    return Outcome(
        accuracy=_per_cent((logits.argmax(1) == labels).double().mean()),
        confidence=_per_cent(before.amax(1).mean()),
        calibration_error=_per_cent(calibration_error(before, labels)),
        loss=_short(cross_entropy(logits.double(), labels)),
        temperature=_short(temperature),
        tempered_calibration_error=_per_cent(calibration_error(after, labels)),
        tempered_loss=_short(cross_entropy(mended.double(), labels)),
        reliability=_bins(before, labels),
        tempered_reliability=_bins(after, labels),
    )


def _bins(probabilities: Tensor, labels: Tensor) -> list[tuple[int, float, float]]:
    rows = reliability(probabilities, labels).tolist()
    return [(int(count), _short(confidence), _short(accuracy)) for count, confidence, accuracy in rows]


def _per_cent(share: Any) -> float:
    return round(100 * float(share), 3)


def _short(value: Any) -> float:
    return round(float(value), 5)
