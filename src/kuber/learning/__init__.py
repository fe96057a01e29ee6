"""Networks, training, evaluation and distillation."""
