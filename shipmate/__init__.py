"""Shipmate: an event-driven release controller for AI applications."""
