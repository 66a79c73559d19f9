"""From a suite of probe pairs to a function map: records, curves, the choice of layers."""
