"""What the training of any ranking model needs."""
