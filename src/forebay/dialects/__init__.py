"""Driver adapters: one file per driver, each the only one that imports it."""

from forebay.dialects._registry import adapted_dialect_for

__all__ = ["adapted_dialect_for"]
