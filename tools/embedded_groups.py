"""Write again the space groups of the embedded crystals, one a line, when these crystals have changed.

uv run python tools/embedded_groups.py
"""

import numpy as np
from druse_crystal.dataset import load_embedded
from druse_generate.known_sites import space_groups_of
from druse_generate.site_choice import EMBEDDED_GROUPS

np.savetxt(EMBEDDED_GROUPS, space_groups_of(load_embedded().crystals), fmt="%d")
