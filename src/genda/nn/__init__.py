"""Networks: every one is called as ``network(inputs, c_noise, condition)`` (see :mod:`genda.nn.unet`)."""
