"""The taper's root against the taper."""

import numpy as np
import torch

from genda.grid import LatLonGrid
from genda.methods.localisation import Localisation, sphere


def test_the_leading_eigenvectors_of_a_taper_hold_it_and_keep_variances():
    localisation = Localisation(sphere(LatLonGrid.gaussian(12, 24)), 8.0e6)
    root = localisation.root()
    assert root.shape[1] < 12 * 24 / 2
    found = root @ root.T
    torch.testing.assert_close(found.diagonal(), torch.ones(288, dtype=torch.float64))
    np.testing.assert_allclose(found, localisation.between_points.matrix.toarray(), atol=0.02)
