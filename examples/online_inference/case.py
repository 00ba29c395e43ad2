"""What is computed: two puffs of smoke in four vortices."""

from solver import Flow

CELLS = 64  # along each side of the grid
STEPS = 160  # from time 0 to 1
FLOW = Flow(((1, 1, 0.15, 0.0, 0.0),))
PUFFS = ((0.35, 0.3, 0.18, 1.0), (0.75, 0.6, 0.12, 0.6))  # x, y, radius, concentration
