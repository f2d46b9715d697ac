"""Prints the probabilities of a .npz file as a JSON list, each exactly."""

import json
import sys

import numpy as np

print(json.dumps([float(x) for x in np.load(sys.argv[1])["probabilities"].flatten()]))
