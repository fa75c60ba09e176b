"""Many guests, in every combination that matters: which of them break, and which few values make them break."""
