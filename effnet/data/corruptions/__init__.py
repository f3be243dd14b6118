"""Camera corruptions of decoded images, to measure how much accuracy they cost; numpy and Pillow only."""
