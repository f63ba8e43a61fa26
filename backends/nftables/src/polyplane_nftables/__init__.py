"""polyplane on nftables."""
