"""The scoring application that users talk to. It knows nothing of Shipmate; they meet in the app contract.

`server` starts it, `lifecycle` says whether it is ready, `web` holds the routes, `model` and `images` do the work.
"""

CONTRACT = "1"
"""The app contract this code speaks: image label `dev.shipmate.contract`, and `contract` in a model's manifest."""
