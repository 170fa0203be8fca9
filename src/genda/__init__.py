"""genda: generative data assimilation with learned diffusion priors."""

__version__ = "0.1.0"
