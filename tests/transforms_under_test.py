"""All transforms, for tests of the properties that they share."""

import mixcollate as mc

MIXING = {name: method for name, method in mc.methods.ALL.items() if method.mixes}
ERASING = {name: method for name, method in mc.methods.ALL.items() if not method.mixes}


def mixing(**options):
    """Every mixing transform and container, with ``options``."""
    made = {name: method(**options) for name, method in MIXING.items()}
    per = options.get("per", "pair")
    members = [
        method(**{k: v for k, v in options.items() if k in ("per", "pairing")})
        for method in (mc.MixUp, mc.CutMix, mc.RICAP, mc.FMix, mc.ResizeMix)
    ]
    labels = {k: v for k, v in options.items() if k not in ("per", "pairing", "p")}
    made["RandomChoice"] = mc.RandomChoice(members, per=per, **labels)
    made["Compose"] = mc.Compose([mc.MixUp(), mc.CutMix()], **labels)
    return made


def erasing(**options):
    """Every erasing transform, with ``options``."""
    return {name: method(**options) for name, method in ERASING.items()}
