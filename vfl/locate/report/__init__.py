"""What a person reads of a function map: report.html, curves.png, the comparison of maps."""
