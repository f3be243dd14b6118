"""How accuracy and calibration of exported files suffer from corrupted and attacked images; no torch."""
