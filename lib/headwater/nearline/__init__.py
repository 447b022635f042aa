"""The three bodies of nearline work, each the body of one job, and the warm stream that runs them round after round."""
