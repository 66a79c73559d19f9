"""GRPO: answers are sampled, rewarded where they are right, and the better ones made likelier (arXiv 2402.03300)."""
