"""Runs the agent when its directory (or a zip file of it) is given to a Python interpreter."""

import sys

from main import main

main(sys.argv[1:])
