"""What the commands do, as functions: synthesis, training and judging put together."""
