"""Gaussian data, where everything that distillation computes has a closed form."""
