"""Writes the image of digit.json as a .npy file."""

import sys

import numpy as np

from common import digit

np.save(sys.argv[1], (np.array(digit["pixels"], dtype=np.float32) / 16).reshape(1, 1, 8, 8))
