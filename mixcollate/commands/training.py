"""One training, from its settings to what it came to: the engine of ``mixcollate demo`` and ``mixcollate compare``."""

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
from mixcollate.commands.data import BATCH_SIZES, PIXELS, Data, load, part
from mixcollate.commands.networks import ARCHITECTURES, resnet50, transfer
from mixcollate.commands.recipes import parse
from mixcollate.loader import DeviceLoader
from mixcollate.losses import soft_cross_entropy

STARTS = ("random", "rest", "first-half", "pretrained")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The settings of one training; two that are equal come to the same.

    Args:
        method: ``"plain"``, or what :func:`~mixcollate.commands.recipes.parse` understands.
        seed: of the network's weights, the images' order, the wrong labels, the part of the data and the mixing.
        data: the name of a data set.
        pixels: height and width of its images; 0: the data's own.
        share: of the training images, in (0, 1].
        classes: ``"all"`` or ``"second-half"``.
        label_noise: the share of the training labels that is wrong.
        architecture: of the network.
        start: ``"random"``; ``"rest"`` or ``"first-half"``: trained for ``start_epochs``, plain and with right labels,
            on the training images that ``share`` leaves over, or on the first half of the classes; ``"pretrained"``:
            torchvision's ImageNet weights.
        epochs: how long to train.
        warm_up: epochs of plain images before mixing begins.
        off_epoch: when mixing ends; negative: counted from the last epoch.
        batch_size: 0: the data's own.
        learning_rate: at the top of its cycle; 0: that of the architecture.
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
        for name, value in settled.items():  # so that what is recorded says it
            object.__setattr__(self, name, value)

    def mixes_in(self, epoch: int) -> bool:
        """Whether images of this epoch are mixed."""
        end = self.epochs if self.off_epoch is None else self.off_epoch
        return self.method != "plain" and self.warm_up <= epoch < (end + self.epochs if end < 0 else end)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a network came to on the test set; shares and errors in per cent, the loss in nats.

    The tempered ones are after division of the logits by the temperature, which was fitted on other images.
    """

    accuracy: float
    confidence: float
    calibration_error: float
    loss: float
    temperature: float = 1.0
    tempered_calibration_error: float = 0.0
    tempered_loss: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Epochs done, and the accuracy then."""
    reliability: list[tuple[int, float, float]] = field(default_factory=list)
    """Bin by bin: predictions, their mean confidence, the share that is right."""
    tempered_reliability: list[tuple[int, float, float]] = field(default_factory=list)


@lru_cache(maxsize=4)
def data_of(name: str, root: Path, pixels: int) -> Data:
    """Read once for all runs."""
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
    """Train as told and judge on the test set.

    Args:
        run: what to do.
        root: where the data lie.
        device: a GPU trains in bfloat16, channels last.
        workers: processes that load data.
        points: how often at most the accuracy is measured along the way.
        advance: called after each epoch.
    """
    data = part(
        data_of(run.data, root, run.pixels),
        share=run.share,
        classes=run.classes,
        label_noise=run.label_noise,
        seed=run.seed,
    )
    return train(run, data, root, device, workers, points, advance)[1]


def try_out(run: Run, root: Path) -> None:
    """Refuse a method that cannot mix images of these data, before anything is trained."""
    data = part(data_of(run.data, root, run.pixels), share=run.share, classes=run.classes)
    samples = [data.train[0]] * 2
    with refusing(f"--methods {run.method} at --pixels {run.pixels}", ValueError, TypeError):
        collate = loaders(run, data, torch.device("cpu"), 0)[0].collate_fn
        for epoch in {0, run.epochs - 1}:  # at one of them a schedule is wrong, if it is in any
            collate.set_epoch(epoch)
            collate(samples).mix()


def train(
    run: Run, data: Data, root: Path, device: torch.device, workers: int, points: int, advance: Callable[[], object]
) -> tuple[nn.Module, Outcome]:
    """The network that was trained, and what it came to."""
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
    torch.manual_seed(run.seed)  # of what the data set draws for itself, a flip say
    every, curve = max(-(-run.epochs // points), 1), []
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
    """The training that precedes one with a start of its own."""
    kept = {"share": run.share, "classes": run.classes} if run.start == "rest" else {"classes": "first-half"}
    same = {
        name: getattr(run, name) for name in ("seed", "data", "pixels", "architecture", "batch_size", "learning_rate")
    }
    return Run(method="plain", epochs=run.start_epochs, **kept, **same)


@lru_cache(maxsize=4)
def _trained(run: Run, rest: bool, root: Path, device: torch.device, workers: int) -> nn.Module:
    """A network to begin from, trained once for all that begin there."""
    data = part(data_of(run.data, root, run.pixels), share=run.share, rest=rest, classes=run.classes, seed=run.seed)
    return train(run, data, root, device, workers, 1, lambda: None)[0]


def loaders(run: Run, data: Data, device: torch.device, workers: int) -> tuple[DeviceLoader, DeviceLoader]:
    """Of the training set, shuffled and mixed as told, and of the test set."""
    memory_format = torch.channels_last if device.type == "cuda" else None
    options: dict[str, Any] = {"num_classes": len(data.classes), "mean": data.mean, "std": data.std}
    mixed = MixupCollate(
        parse("mixup" if run.method == "plain" else run.method), **options, memory_format=memory_format, seed=run.seed
    )
    plain = MixupCollate(**options, memory_format=memory_format)
    mixed.enabled = run.mixes_in(0)
    plain.enabled = False

    def loader(dataset: Dataset[Any], batch_size: int, **how: Any) -> DeviceLoader:
        how |= {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": device.type == "cuda"}
        return DeviceLoader(DataLoader(dataset, batch_size, **how), device)

    size = run.batch_size
    # a rest of one image would leave batch normalisation nothing to normalise by
    shuffled = {"shuffle": True, "generator": torch.Generator().manual_seed(run.seed)}
    shuffled["drop_last"] = len(data.train) > size  # type: ignore[arg-type]
    return loader(data.train, size, collate_fn=mixed, **shuffled), loader(data.test, 500, collate_fn=plain)


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
    for images, targets in loader:
        with torch.autocast(loader.device.type, torch.bfloat16, enabled=cuda):
            logits.append(model(images).float().cpu())
        labels.append(targets.argmax(1).cpu())
    return torch.cat(logits), torch.cat(labels)


def judge(logits: Tensor, labels: Tensor) -> Outcome:
    """What predictions are worth."""
    if not logits.isfinite().all():
        raise Refusal("training must end with finite outputs, got some that are not; try a lower --learning-rate")
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
