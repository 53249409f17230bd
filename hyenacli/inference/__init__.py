"""What several verbs read off a model: batches, windows, embeddings, predictions, likelihoods."""
