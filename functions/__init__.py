"""The triggers: translate in, call one function of shipmate, translate out."""
