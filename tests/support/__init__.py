"""What tests of several rooms share: made-up networks, circuits, profiles and search problems."""
