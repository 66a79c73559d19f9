"""What a run is going to do, known and measured before its first step."""
