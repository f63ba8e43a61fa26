"""polyplane's backend for eBPF."""
