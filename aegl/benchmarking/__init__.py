"""Speed, memory and AP of a trained model in every engine that can run it, measured side by side."""
