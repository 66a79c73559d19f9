"""What all reports are made with: pages, charts, figures, numbers in words. Each job keeps its own report."""
