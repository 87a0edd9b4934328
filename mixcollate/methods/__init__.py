"""How each method draws its part of a plan: one short file a method."""

from mixcollate.methods.cutmix import cutmix as cutmix
from mixcollate.methods.mixup import mixup as mixup
