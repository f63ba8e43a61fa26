"""polyplane on iptables and ipset."""
