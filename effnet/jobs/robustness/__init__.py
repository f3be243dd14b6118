"""The verbs that ask how a bundle bears other images than its own: evaluate with its options, and monitor."""
