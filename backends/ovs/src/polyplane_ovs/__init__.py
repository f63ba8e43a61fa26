"""polyplane's backend for Open vSwitch; see README.md for how the IR maps to flows."""
