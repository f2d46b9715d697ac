"""Writes the image of digit.json as a .npy file."""

import json
import pathlib
import sys

import numpy as np

digit = json.loads((pathlib.Path(__file__).parent / "digit.json").read_text())
np.save(sys.argv[1], (np.array(digit["pixels"], dtype=np.float32) / 16).reshape(1, 1, 8, 8))
