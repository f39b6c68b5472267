"""Driver adapters: one file per driver, each the only one that imports it."""

from forebay.dialects._arguments import ConnectArguments
from forebay.dialects._registry import adapted_dialect_for

__all__ = ["ConnectArguments", "adapted_dialect_for"]
