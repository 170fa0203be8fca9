"""Guidance: functions from a prior denoiser and a problem to a posterior denoiser. One method, one file."""
