"""The arguments of timm's ``Mixup``, ``FastCollateMixup`` and loader, as a transform of this library."""

from mixcollate.checks import check_choice, check_count, check_flag, check_number, check_probability, check_range
from mixcollate.containers import Compose, RandomChoice
from mixcollate.draw import Per
from mixcollate.methods import CutMix, MixUp, RandomErasing
from mixcollate.methods.fill import Fill
from mixcollate.transforms import MixOptions, MixTransform

_PER: dict[str, Per] = {"batch": "batch", "pair": "pair", "elem": "sample"}
_FILLS: dict[str, Fill] = {"const": 0.0, "rand": "channel_noise", "pixel": "noise"}


def transform(
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    cutmix_minmax: tuple[float, float] | None,
    prob: float,
    switch_prob: float,
    mode: str,
    correct_lam: bool,
    label_smoothing: float,
    multi_label: bool,
    reprob: float,
    remode: str,
    recount: int,
) -> MixTransform:
    """The transform that does the same as timm with these arguments; see ``MixupCollate.from_timm``."""
    if mode == "half":
        raise ValueError(
            "mode must be 'batch', 'pair' or 'elem', got 'half', which mixes a batch and drops half of it; use half "
            "the batch size and mode='elem'"
        )
    per = _PER[check_choice("mode", mode, tuple(_PER))]
    fill = _FILLS[check_choice("remode", remode, tuple(_FILLS))]
    prob, switch_prob = check_probability("prob", prob), check_probability("switch_prob", switch_prob)
    reprob, recount = check_probability("reprob", reprob), check_count("recount", recount)
    mixup_alpha, cutmix_alpha = check_number("mixup_alpha", mixup_alpha), check_number("cutmix_alpha", cutmix_alpha)
    multi_label, correct_lam = check_flag("multi_label", multi_label), check_flag("correct_lam", correct_lam)
    if multi_label and label_smoothing != 0:
        raise ValueError(
            f"label_smoothing must be 0 with multi_label=True, got {label_smoothing}; "
            "smooth the rows in the dataset: labels * (1 - s) + s / 2"
        )
    if cutmix_minmax is not None:
        cutmix_minmax = check_range("cutmix_minmax", cutmix_minmax, 0, 1)
        cutmix_alpha = 1.0
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        raise ValueError(f"mixup_alpha or cutmix_alpha must be positive, got {mixup_alpha} and {cutmix_alpha}")
    common: MixOptions = {"pairing": "flip", "per": per, "p": prob, "label_smoothing": label_smoothing}
    mixing: list[MixTransform] = []
    if mixup_alpha > 0:
        mixing.append(MixUp(alpha=mixup_alpha, **common))
    if cutmix_alpha > 0:
        mixing.append(
            CutMix(alpha=cutmix_alpha, minmax=cutmix_minmax, placement="timm", correct_lam=correct_lam, **common)
        )
    chosen = mixing[0] if len(mixing) == 1 else RandomChoice(mixing, p=(1 - switch_prob, switch_prob), per=per)
    if reprob == 0:
        return chosen
    erasing = RandomErasing(p=reprob, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), count=(1, recount), fill=fill)
    return Compose([chosen, erasing])
