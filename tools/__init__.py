"""What the project is worked on with. Nothing that runs imports it."""
