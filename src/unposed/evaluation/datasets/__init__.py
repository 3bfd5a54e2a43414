"""Readers of the standard benchmarks' on-disk layouts, each giving the few nouns of ``base``."""
