"""Benchmark protocols, one file each: what is run on a sequence, what is measured, how sequences become one number."""
