"""mixup and its relatives on the device: one plan, one pass, soft targets."""

from mixcollate.plan import MixPlan as MixPlan
