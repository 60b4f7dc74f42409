"""Training, evaluation and prediction: what runs models over data and keeps what comes out."""
