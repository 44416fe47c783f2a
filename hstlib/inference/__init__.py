"""Use of trained models: prediction, export."""
