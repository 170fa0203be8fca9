"""Diffusion priors: noise schedules, denoisers, the Gaussian bases they correct, samplers and the training loss."""
