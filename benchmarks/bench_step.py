"""How much longer is a training step with mixing: none, ours, torchvision's, timm's?

A step takes a uint8 batch on the device: normalise, mix, forward, loss of dense targets, backward, SGD; bfloat16
autocast, channels_last for the ResNet. All rivals train the same model.
"""

from typing import Any

import pytest
import torch
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.transforms import v2

from benchmarks.common import CLASSES, MEAN, STD, Rivals, random_images, scaled
from benchmarks.peers import imported, where
from mixcollate import MixupCollate

MODELS = ["ResNet-50", "ViT-S/16"]
RIVALS = ["no mixing", "mixcollate", "torchvision", "timm"]
SIDE = scaled(224, 32)


def make_model(name: str, device: torch.device) -> torch.nn.Module | str:
    if name == "ResNet-50":
        return resnet50(num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    timm = imported("timm")
    if isinstance(timm, str):
        return timm
    return timm.create_model("vit_small_patch16_224", num_classes=CLASSES, img_size=SIDE).to(device)


def step_rivals(name: str, batch: int, device: torch.device) -> Rivals:
    model = make_model(name, device)
    if isinstance(model, str):
        return dict.fromkeys(RIVALS, model)
    memory_format = torch.channels_last if name == "ResNet-50" else torch.contiguous_format
    pixels = random_images((batch, 3, SIDE, SIDE), torch.uint8, device, memory_format)
    labels = torch.randint(CLASSES, (batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def collate() -> MixupCollate:
        return MixupCollate(num_classes=CLASSES, mean=MEAN, std=STD, dtype=torch.bfloat16, memory_format=memory_format)

    ours, unmixed = collate(), collate()
    unmixed.enabled = False
    normalise = v2.Compose([v2.ToDtype(torch.bfloat16, scale=True), v2.Normalize(MEAN, STD)])
    mixup = v2.MixUp(num_classes=CLASSES)

    def timm_mixup(module: Any) -> Any:
        mixing = module.Mixup(label_smoothing=0.0, num_classes=CLASSES)
        return step(lambda: mixing(normalise(pixels), labels))

    def step(mix: Any) -> Any:
        def run() -> None:
            images, targets = mix()
            with torch.autocast(device.type, torch.bfloat16):
                loss = functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    return {
        "no mixing": step(lambda: unmixed.mix((pixels, labels))),
        "mixcollate": step(lambda: ours.mix((pixels, labels))),
        "torchvision": step(lambda: mixup(normalise(pixels), labels)),
        "timm": where(imported("timm.data.mixup"), timm_mixup),
    }


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("model", MODELS)
def test_step(race, device, model, rival):
    batch = scaled(256 if device.type == "cuda" else 4, 2)  # 256 would take a CPU minutes
    torch.backends.cudnn.benchmark = True
    race(
        lambda: step_rivals(model, batch, device), rival, case=f"{model}, bfloat16, {batch} images of {SIDE}×{SIDE}",
        device=device, ours="no mixing", images=batch,
    )  # fmt: skip
