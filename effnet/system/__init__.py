"""What this computer gives: files."""
