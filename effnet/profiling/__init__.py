"""Device profiles: the cost of network operators, measured on a device, and predictions from it."""
