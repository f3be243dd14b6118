"""Sounds as images: spectrograms with mel bands in decibels, computed with numpy alone."""
