"""What `narthex doctor` looks at: each file one area, each finding with what to do. Changes nothing, starts nothing."""
