"""Faster products and convolutions on a CPU."""
