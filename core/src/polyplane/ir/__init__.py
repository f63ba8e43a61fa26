"""3. The contract with every backend: program, delta, features, evaluate, tabulate, text."""
