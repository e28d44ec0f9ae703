"""The Function App: registers the triggers. The Functions Python v2 model wants it at the root."""

import os

import azure.functions as func

from functions import advance, image_pushed, model_published, releases, sweep
from functions.callers import auth_level
from functions.logs import quiet_libraries

quiet_libraries()
app = func.FunctionApp(http_auth_level=auth_level(os.environ))
for trigger in (model_published, image_pushed, advance, sweep, releases):
    app.register_functions(trigger.blueprint)
