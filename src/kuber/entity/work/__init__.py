"""Work steps: training, distillation and evaluation as pure functions."""
