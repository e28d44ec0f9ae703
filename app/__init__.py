"""The scoring application that users talk to. It knows nothing of Shipmate; they meet in the app contract."""
