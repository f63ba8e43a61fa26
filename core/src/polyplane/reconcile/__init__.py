"""4. Getting there: diff, order, loop."""
