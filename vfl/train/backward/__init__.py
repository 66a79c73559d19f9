"""The backward pass: where it ends, and what it costs in memory."""
