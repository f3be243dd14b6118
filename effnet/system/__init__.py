"""Operating system services: files, locks, downloads, signals, memory."""
