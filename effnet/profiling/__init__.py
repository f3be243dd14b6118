"""What a device takes for the operators that networks consist of, measured on it; predictions from that."""
